"""The text format in which LVM2 keeps its metadata: sections of `name = value`, nested in braces."""

import re

Value = str | int | list[str | int]
Section = dict[str, "Value | Section"]

MAX_DEPTH = 8
TOKEN = re.compile(r'\s+|#[^\n]*|"((?:[^"\\]|\\.)*)"|(-?\d+(?:\.\d+)?)(?![\w.])|([\w.+-]+)|([{}\[\]=,])')


class MetadataDamaged(ValueError):
    """The text is no LVM metadata."""


def parse(text: str) -> Section:
    tokens = _tokens(text)
    tokens.reverse()
    return _section(tokens, 0)


def section(parent: Section, name: str) -> Section:
    found = parent.get(name)
    if not isinstance(found, dict):
        raise MetadataDamaged(f"{name} is missing")
    return found


def number(parent: Section, name: str) -> int:
    found = parent.get(name)
    if not isinstance(found, int) or found < 0:
        raise MetadataDamaged(f"{name} is no number")
    return found


def words(parent: Section, name: str) -> list[str | int]:
    found = parent.get(name)
    if not isinstance(found, list):
        raise MetadataDamaged(f"{name} is no list")
    return found


def sections(parent: Section) -> dict[str, Section]:
    return {name: value for name, value in parent.items() if isinstance(value, dict)}


def _tokens(text: str) -> list[tuple[str, str]]:
    found = []
    at = 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match:
            raise MetadataDamaged(f"unexpected character {text[at]!r}")
        at = match.end()
        kind = match.lastindex
        if kind:
            found.append((("text", "number", "name", "mark")[kind - 1], match.group(kind)))
    return found


def _section(tokens: list[tuple[str, str]], depth: int) -> Section:
    """Consumes up to and with the closing brace. `tokens` is a stack, its end is read next."""
    if depth > MAX_DEPTH:
        raise MetadataDamaged("sections are nested too deeply")
    found: Section = {}
    while tokens:
        kind, name = tokens.pop()
        if (kind, name) == ("mark", "}") and depth:
            return found
        if kind not in {"name", "number"} or not tokens:
            raise MetadataDamaged(f"a name was expected instead of {name!r}")
        mark = tokens.pop()
        if mark == ("mark", "{"):
            found[name] = _section(tokens, depth + 1)
        elif mark == ("mark", "="):
            found[name] = _value(tokens)
        else:
            raise MetadataDamaged(f"{name} has neither value nor section")
    if depth:
        raise MetadataDamaged("a section does not end")
    return found


def _value(tokens: list[tuple[str, str]]) -> Value:
    if not tokens:
        raise MetadataDamaged("a value is missing")
    if tokens[-1] != ("mark", "["):
        return _scalar(tokens.pop())
    tokens.pop()
    found = []
    while tokens and tokens[-1] != ("mark", "]"):
        if tokens[-1] == ("mark", ","):
            tokens.pop()
        else:
            found.append(_scalar(tokens.pop()))
    if not tokens:
        raise MetadataDamaged("a list does not end")
    tokens.pop()
    return found


def _scalar(token: tuple[str, str]) -> str | int:
    kind, value = token
    if kind == "number":
        return int(float(value)) if "." in value else int(value)
    if kind == "text":
        return value
    raise MetadataDamaged(f"a value was expected instead of {value!r}")

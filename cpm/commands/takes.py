"""NAME=VALUE on the command line, for what a resource type says that its requests take."""

from collections.abc import Sequence
from typing import Any

import typer

from cpm.commands.terminal import failed
from cpm.resources.fields import Takes

# They have an option of their own.
ELSEWHERE = frozenset({"to_account"})
YES, NO = frozenset({"yes", "true", "on"}), frozenset({"no", "false", "off"})


def read(noun: str, takes: Sequence[Takes], given: Sequence[str]) -> dict[str, Any]:
    """The values by name. Whatever does not fit ends the command with a sentence, and the names that there are."""
    known = {one.name: one for one in takes if one.name not in ELSEWHERE}
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            raise _refused(f"“{text}” is not NAME=VALUE with a NAME that is known.", noun, known.values())
        found[name] = _value(known[name], value)
    if missing := [one.name for one in known.values() if one.required and not found.get(one.name)]:
        raise _refused(f"Missing: {', '.join(missing)}.", noun, known.values())
    return found


def _value(one: Takes, text: str) -> Any:
    words = one.words or ([choice for choice, _ in one.choices.choices()] if one.choices else ())
    if words:
        match = next((word for word in words if word.lower() == text.lower()), None)
        if match is None:
            raise failed(f"{one.name} is one of {', '.join(words)}, not “{text}”.")
        return match
    if one.holds is bool:
        if text.lower() not in YES | NO:
            raise failed(f"{one.name} is yes or no, not “{text}”.")
        return text.lower() in YES
    if one.holds is int:
        if not text.isdecimal():
            raise failed(f"{one.name} is a number, not “{text}”.")
        return int(text)
    return text


def _refused(why: str, noun: str, known: Any) -> typer.Exit:
    lines = [f"  {one.name}{' (required)' if one.required else ''}  {one.help}".rstrip() for one in known]
    return failed("\n".join([why, f"A recovery takes ({noun}):", *lines]))

"""The page for people about the known errors of AWS, as Markdown."""

from collections.abc import Iterator

from cpm.aws.known_error import STATE, KnownError
from cpm.aws.known_errors import SECTIONS

_HEAD = """# Errors of AWS, and what to do

When AWS refuses something, CPM shows what failed and where, what to do, AWS's own code and words, and the request id that
AWS Support asks for. A word in square brackets at the end is the name of an entry of this page. An error without one is
not listed here: then AWS's words are all there is to go by. *ACTION* and *POLICY* stand for the IAM action and the kind of
policy that AWS names.

This page is written by `cpm errors write` from `cpm/aws/known_errors.py`; a test compares the two.
"""


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(_section(title, entries) for title, entries in SECTIONS.items())


def _section(title: str, entries: tuple[KnownError, ...]) -> str:
    return f"\n## {title}\n" + "".join(_entry(entry) for entry in entries)


def _entry(entry: KnownError) -> str:
    advice = entry.advice.format(permission="*ACTION*", policy="*POLICY*")
    lines = [f"\n### {entry.code}", "", f"{entry.title}.", "", f"**What to do:** {advice}", ""]
    return "\n".join([*lines, *(f"- {line}" for line in _signs(entry)), f"- [AWS documentation]({entry.source})", ""])


def _signs(entry: KnownError) -> Iterator[str]:
    """What it is recognised by."""
    if entry.family == STATE:
        yield "AWS shows it as the reason of the snapshot's state"
    elif entry.family:
        yield f"Kind of error: `aws_{entry.family}`"
    if entry.aws_codes:
        yield "AWS's code: " + ", ".join(f"`{code}`" for code in entry.aws_codes)
    if entry.services:
        calls = [f"`{service}:{action}`" for service in entry.services for action in entry.actions or ("*",)]
        yield "Calls: " + ", ".join(calls)
    if entry.words:
        yield f"AWS's words: `{entry.words}` (a regular expression)"

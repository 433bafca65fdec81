"""What accounts, policies and schedules may be called."""

import re

LONGEST_NAME = 128
# A policy's name stands in tag values, where a space separates names, and in the file names
# of backup scripts; so one narrow rule holds for everything that has a name.
_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{LONGEST_NAME}}}")

Problem = tuple[str, str]
# The reserved name of the policy that backs up this server's own data.
SERVER_DATA = "cpmdata"


def name_problems(name: str) -> list[Problem]:
    """Message and code of what is wrong with a name; empty when nothing is."""
    if _NAME.fullmatch(name):
        return []
    if len(name) > LONGEST_NAME:
        return [(f"A name has at most {LONGEST_NAME} characters.", "max_length")]
    return [("A name consists of letters, digits, underscores and dashes.", "invalid_name")]

"""One known failure of AWS: how to recognise it, and what a person can do about it."""

import re
from dataclasses import dataclass
from functools import cached_property

STATE = "state"
"""Takes the place of a family for what AWS reports later, as the reason of a resource's state, without an error."""


@dataclass(frozen=True, kw_only=True)
class KnownError:
    """Recognised by everything that is given; at least a family (of `cpm.aws.errors`, or STATE) or AWS's codes are.

    ``code`` is stable: people search for it. In the advice on a denial ``{permission}`` stands for the IAM action that
    is not allowed and ``{policy}`` for the kind of policy that forbids it.
    """

    code: str
    title: str
    advice: str
    source: str
    family: str = ""
    aws_codes: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    words: str = ""
    """A regular expression for AWS's message, where the code alone does not tell; letter case does not matter."""

    def __post_init__(self) -> None:
        if not (self.family or self.aws_codes):
            raise ValueError(f"{self.code} would match any error with its words")

    def matches(self, *, family: str, service: str, action: str, aws_code: str, message: str) -> bool:
        return (
            self.family in ("", family)
            and (not self.aws_codes or aws_code in self.aws_codes)
            and (not self.services or service in self.services)
            and (not self.actions or action in self.actions)
            and bool(self._pattern.search(message))
        )

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(self.words, re.IGNORECASE)

"""How a resource type says what its targets and snapshots show, and what its requests take."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cpm.lib.states import LabelledEnum

Scalar = type[str] | type[int] | type[bool] | type[datetime]


@dataclass(frozen=True, slots=True)
class Shows:
    """A field of an answer. `path` is where its value lies: columns and keys of JSON columns, joined by two underscores."""

    name: str
    path: str
    holds: Scalar = str
    choices: type[LabelledEnum] | None = None


@dataclass(frozen=True, slots=True)
class Takes:
    """A field of a request's body. What is not `required` may be left out and then keeps its value, or is as it was."""

    name: str
    holds: Scalar = str
    required: bool = False
    choices: type[LabelledEnum] | None = None
    words: Sequence[str] = ()
    help: str = ""
    default: Any = None

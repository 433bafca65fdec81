"""Least-privilege IAM policies from what the code declares it calls.

Every declared action carries the reason it is needed. The policies group actions that share resource and
condition, are split under AWS's size limit, and come out the same for the same declarations, so that a diff
shows a change.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_POLICY_CHARACTERS = 6144
"""IAM's limit on a customer managed policy; white space does not count."""
SERVER_TAG = "cpm_server_id"

Condition = Mapping[str, Mapping[str, str | Sequence[str]]]
Document = dict[str, Any]

_ACTION = re.compile(r"[a-z][a-z0-9-]*:[A-Z][A-Za-z0-9]*")


@dataclass(frozen=True)
class IamAction:
    """One action, why it is called, and on what.

    ``resource`` is an ARN pattern, or several; ``{partition}`` in it stands for the partition. ``group`` says
    for which part of the product it is needed ("backup", "dr", "recovery"), and becomes the statement's name. ``within`` names
    the action in whose call AWS checks this one too; CPM never calls it by its own name.
    """

    action: str
    group: str
    why: str
    resource: str | tuple[str, ...] = "*"
    condition: Condition | None = None
    within: str = ""

    def __post_init__(self) -> None:
        if not _ACTION.fullmatch(self.action):
            raise ValueError(f"not one exact IAM action: {self.action!r}")
        if not self.why.strip() or not self.group.strip():
            raise ValueError(f"{self.action} needs a group and a reason")

    @property
    def resources(self) -> tuple[str, ...]:
        return (self.resource,) if isinstance(self.resource, str) else tuple(sorted(set(self.resource)))

    @property
    def unlimited(self) -> bool:
        return self.resources == ("*",) and not self.condition


def tagged_as_ours(server_id: str | None = None) -> Condition:
    """Only resources that carry our server tag: that of one server, or of any when none is given."""
    if server_id is None:
        return {"Null": {f"aws:ResourceTag/{SERVER_TAG}": "false"}}
    return {"StringEquals": {f"aws:ResourceTag/{SERVER_TAG}": server_id}}


def tagging_as_ours() -> Condition:
    """Only calls that put our server tag on what they create (``aws:RequestTag``)."""
    return {"Null": {f"aws:RequestTag/{SERVER_TAG}": "false"}}


def tag_only_on_create(*actions: str) -> Condition:
    """For ec2:CreateTags: only as part of these creating calls, such as CreateSnapshot."""
    return {"StringEquals": {"ec2:CreateAction": sorted(actions)}}


def policies(actions: Iterable[IamAction], *, partition: str = "aws") -> list[Document]:
    """The smallest number of documents, each within the limit, that together allow exactly these actions."""
    documents: list[Document] = []
    for statement in _statements(list(actions), partition):
        for piece in _within_limit(statement):
            if documents and _size(_document([*documents[-1]["Statement"], piece])) <= MAX_POLICY_CHARACTERS:
                documents[-1]["Statement"].append(piece)
            else:
                documents.append(_document([piece]))
    for document in documents:
        _name_statements(document)
    return documents


def trust_policy(
    principal_arn: str, *, external_id: str | None = None, self_arn: str | None = None
) -> Document:
    """Who may assume the role. ``self_arn`` adds the role itself, which recovery by workers of the account
    needs.

    The external id guards against a third party that knows the role's ARN; it binds the foreign principal
    only.
    """
    statement: Document = {
        "Sid": "CpmServer",
        "Effect": "Allow",
        "Principal": {"AWS": principal_arn},
        "Action": "sts:AssumeRole",
    }
    if external_id:
        statement["Condition"] = {"StringEquals": {"sts:ExternalId": external_id}}
    statements = [statement]
    if self_arn:
        # IAM refuses a role as its own principal before it exists; the account's root with an ArnEquals does
        # not.
        account = ":".join(self_arn.split(":")[:5]) + ":root"
        statements.append(
            {
                "Sid": "CpmSelf",
                "Effect": "Allow",
                "Principal": {"AWS": account},
                "Action": "sts:AssumeRole",
                "Condition": {"ArnEquals": {"aws:PrincipalArn": self_arn}},
            }
        )
    return _document(statements)


def service_trust_policy(service: str = "ec2.amazonaws.com") -> Document:
    """Lets an AWS service, by default the machine that the server runs on, use the role."""
    principal = {"Service": service}
    return _document(
        [{"Sid": "CpmMachine", "Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}]
    )


def write(folder: Path, name: str, actions: Iterable[IamAction], *, partition: str = "aws") -> list[Path]:
    """Writes ``<name>-1.json``… and ``<name>-actions.md`` with the reasons; removes parts of a former, longer
    set."""
    declared = list(actions)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, document in enumerate(policies(declared, partition=partition), start=1):
        path = folder / f"{name}-{number}.json"
        path.write_text(json.dumps(document, indent=2) + "\n")
        written.append(path)
    reasons = folder / f"{name}-actions.md"
    reasons.write_text(reasons_table(declared))
    for stale in folder.glob(f"{name}-*.json"):
        if re.fullmatch(r"\d+", stale.stem.removeprefix(f"{name}-")) and stale not in written:
            stale.unlink()
    return [*written, reasons]


def write_trust(folder: Path, name: str, document: Document) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    return path


def reasons_table(actions: Iterable[IamAction]) -> str:
    """Every action with group, reason and bounds as a Markdown table, for those who must approve the
    policy."""
    rows = {
        (each.group, each.action, each.why, ", ".join(each.resources), _compact(each.condition))
        for each in actions
    }
    lines = ["| group | action | why | resources | condition |", "|---|---|---|---|---|"]
    for row in sorted(rows):
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return "\n".join(lines) + "\n"


def _statements(actions: Sequence[IamAction], partition: str) -> list[Document]:
    everywhere = {each.action for each in actions if each.unlimited}
    merged: dict[tuple[str, tuple[str, ...], str], set[str]] = {}
    placed: set[tuple[str, tuple[str, ...], str]] = set()
    for each in sorted(
        actions, key=lambda one: (one.group, one.resources, _compact(one.condition), one.action)
    ):
        condition = _compact(each.condition)
        bounds = (each.action, each.resources, condition)
        # What is allowed everywhere needs no second, narrower statement; nor does one that two groups share.
        if bounds in placed or (each.action in everywhere and not each.unlimited):
            continue
        placed.add(bounds)
        merged.setdefault((each.group, each.resources, condition), set()).add(each.action)
    return [
        _statement(
            group, sorted(names), [one.replace("{partition}", partition) for one in resources], condition
        )
        for (group, resources, condition), names in merged.items()
    ]


def _statement(group: str, names: list[str], resources: list[str], condition: str) -> Document:
    statement: Document = {
        "Sid": "".join(word.capitalize() for word in re.findall(r"[A-Za-z0-9]+", group)),
        "Effect": "Allow",
        "Action": names,
        "Resource": resources[0] if len(resources) == 1 else resources,
    }
    if condition:
        statement["Condition"] = json.loads(condition)
    return statement


def _within_limit(statement: Document) -> list[Document]:
    # Names get a number later, hence the reserve.
    if _size(_document([statement])) <= MAX_POLICY_CHARACTERS - 8:
        return [statement]
    names = statement["Action"]
    if len(names) == 1:
        raise ValueError(f"the resources and conditions of {names[0]} alone exceed the size of an IAM policy")
    half = len(names) // 2
    return [
        piece
        for part in (names[:half], names[half:])
        for piece in _within_limit({**statement, "Action": part})
    ]  # fmt: skip


def _name_statements(document: Document) -> None:
    # A Sid must be unique within its document.
    seen: dict[str, int] = {}
    for statement in document["Statement"]:
        base = statement["Sid"]
        seen[base] = seen.get(base, 0) + 1
        if seen[base] > 1:
            statement["Sid"] = f"{base}{seen[base]}"


def _document(statements: list[Document]) -> Document:
    return {"Version": "2012-10-17", "Statement": statements}


def _size(document: Document) -> int:
    reserve = 4 * len(document["Statement"])
    return len(re.sub(r"\s", "", json.dumps(document))) + reserve


def _compact(condition: Condition | None) -> str:
    return json.dumps(condition, sort_keys=True, separators=(",", ":")) if condition else ""

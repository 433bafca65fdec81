"""Worker tags: what the temporary things that workers make in AWS for an account are tagged with."""

import re
from collections import defaultdict

from django.db import transaction

from cpm.flows.tags import MOST_TAGS
from cpm.lib.errors import LimitExceeded, ValidationFailed
from cpm.lib.names import Problem
from cpm.models import Actor, WorkerTag
from cpm.services import audit, scope

RIGHT = "worker_tags.change"
LONGEST_KEY, LONGEST_VALUE = 128, 256

# EC2 user guide, "Tag restrictions", and what every other service takes: letters, digits, spaces and + - = . _ : / @.
_ALLOWED = re.compile(r"[\w\s+\-=.:/@]*")
# AWS's own, and ours: somebody else's would be taken for what a step has made.
_RESERVED = ("aws:", "cpm_")


@transaction.atomic
def create(*, actor: Actor, account: int, key: str, value: str = "") -> WorkerTag:
    """A new tag of that account. Raises `ValidationFailed` for what AWS would not take, `LimitExceeded` for more tags than
    it takes, `Conflict` for a key that the account has, and `NotFound` for an account out of reach."""
    row = WorkerTag(account=scope.account(actor, RIGHT, account), key=key, value=value)
    _check(row)
    _save(row)
    audit.record(actor, "worker_tag.created", row, after=audit.state_of(row))
    return row


@transaction.atomic
def update(
    *,
    actor: Actor,
    tag: WorkerTag,
    account: int | None = None,
    key: str | None = None,
    value: str | None = None,
) -> WorkerTag:
    """Changes what is given; a tag moves only between accounts of one user. Raises what `create` raises."""
    row = scope.locked(actor, RIGHT, tag, "worker tag")
    was = audit.state_of(row)
    if account is not None and account != row.account_id:
        row.account = scope.account(actor, RIGHT, account, of=row.account.user_id)
    row.key = row.key if key is None else key
    row.value = row.value if value is None else value
    _check(row)
    _save(row)
    audit.record(actor, "worker_tag.updated", row, before=was, after=audit.state_of(row))
    return row


@transaction.atomic
def delete(*, actor: Actor, tag: WorkerTag) -> None:
    """Forgets the tag; what carries it in AWS keeps it."""
    row = scope.locked(actor, RIGHT, tag, "worker tag")
    audit.record(actor, "worker_tag.deleted", row, before=audit.state_of(row))
    row.delete()


def _save(row: WorkerTag) -> None:
    # Whoever adds one holds the account's lock (`scope.account`), so two that come at once count each other.
    others = WorkerTag.objects.filter(account=row.account_id).exclude(pk=row.pk)
    if others.count() >= MOST_TAGS:
        raise LimitExceeded("worker tags in an account", MOST_TAGS)
    with scope.is_unique(
        "worker_tag_once", field="key", otherwise="This account has a worker tag with this key already."
    ):
        row.save()


def _check(row: WorkerTag) -> None:
    problems: dict[str, list[Problem]] = defaultdict(list)
    if not row.key.strip():
        problems["key"].append(("A tag needs a key.", "required"))
    for name, text, longest in (("key", row.key, LONGEST_KEY), ("value", row.value, LONGEST_VALUE)):
        if len(text) > longest:
            problems[name].append((f"AWS takes {longest} characters at most.", "max_length"))
        if not _ALLOWED.fullmatch(text):
            problems[name].append(
                ("AWS takes letters, digits, spaces and + - = . _ : / @ in tags.", "invalid")
            )
    if row.key.lower().startswith(_RESERVED):
        problems["key"].append(("Keys that begin with aws: or cpm_ are not for users.", "reserved"))
    if problems:
        raise ValidationFailed(problems)

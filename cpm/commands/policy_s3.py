"""A policy's options for copies in S3, in words and read from words."""

import re
from collections.abc import Sequence
from typing import Any

from cpm import permissions
from cpm.commands.terminal import failed
from cpm.flows.s3 import operation
from cpm.lib.states import RetentionUnit
from cpm.models import Actor, Policy, S3Repository
from cpm.services import s3_operations

NONE = "none"
_SPAN = re.compile(r"(\d{1,6})\s*([a-z]+)")
_UNITS = {unit.label.lower(): unit for unit in RetentionUnit}


def describe(policy: Policy) -> list[tuple[str, str]]:
    """Every option with its name."""
    repository = policy.s3_repository.name if policy.s3_repository else NONE
    every = "every backup" if policy.s3_copy_interval == 1 else f"one of {policy.s3_copy_interval} backups"
    rules = [f"{policy.s3_generations} generations"] if policy.s3_keep_by_generations else []
    rules += [_words(policy, "s3_keep_time")] if policy.s3_keep_by_time else []
    shown = [
        ("Copies", f"{every} to {repository}" if policy.s3_enabled else f"off, repository {repository}"),
        ("Storage class", policy.get_s3_storage_class_display()),
        ("Kept", " and ".join(rules) or "for ever"),
        ("Snapshots after the copy", "deleted" if policy.s3_delete_originals else "kept"),
        ("Archive", _archive(policy)),
    ]
    if job := operation.running(policy):
        shown.append(("Running now", s3_operations.NAMES.get(job.kind, job.kind)))
    return shown


def _archive(policy: Policy) -> str:
    if not policy.archive_enabled:
        return "off"
    kind, every = policy.get_archive_storage_class_display(), _words(policy, "archive_every")
    return f"{kind}, one backup in {every}, kept {_words(policy, 'archive_keep')} from the backup"


def _words(policy: Policy, name: str) -> str:
    count, unit = getattr(policy, name), RetentionUnit(getattr(policy, f"{name}_unit")).label.lower()
    return f"{count} {unit if count != 1 else unit.removesuffix('s')}"


def span(text: str, name: str) -> dict[str, Any]:
    """“6 months” as the option of that name with its unit."""
    match = _SPAN.fullmatch(text.strip().lower())
    unit = _UNITS.get(match[2].removesuffix("s") + "s") if match else None
    if match is None or unit is None:
        raise failed(f"“{text}” is not a time; say it like 10 days, 2 weeks, 6 months or 1 year.")
    return {name: int(match[1]), f"{name}_unit": unit}


def kept(generations: str | None, time: str | None) -> dict[str, Any]:
    """The two rules of retention; `none` switches one off, anything else on."""
    found: dict[str, Any] = {}
    if generations is not None:
        found["s3_keep_by_generations"] = generations != NONE
        if generations != NONE:
            if not (generations.isascii() and generations.isdecimal() and len(generations) < 10):
                raise failed(f"“{generations}” is not a number of generations.")
            found["s3_generations"] = int(generations)
    if time is not None:
        found["s3_keep_by_time"] = time != NONE
        found |= span(time, "s3_keep_time") if time != NONE else {}
    return found


def archive(every: str | None, keep: str | None) -> dict[str, Any]:
    """How often and for how long backups are archived."""
    found = span(every, "archive_every") if every is not None else {}
    return found | (span(keep, "archive_keep") if keep is not None else {})


def repository(actor: Actor, policy: Policy, name: str) -> int | None:
    """The id of the repository of the policy's user with that name or id."""
    if name == NONE:
        return None
    rows = permissions.visible(actor.user, S3Repository.objects.all(), "s3_repositories.read")
    mine = rows.filter(user=policy.user_id)
    found = mine.filter(name=name).first()
    if found is None and name.isdecimal():
        found = mine.filter(pk=int(name)).first()
    if found is None:
        raise failed(f"{policy.user.username} has no S3 repository {name}.")
    return found.pk


def chosen(value: str | None, known: Sequence[str], option: str) -> dict[str, str]:
    """One value of an enumeration under its option, in whatever case it is written."""
    if value is None:
        return {}
    if value.upper() not in known:
        raise failed(f"“{value}” is none of {', '.join(known)}.")
    return {option: value.upper()}

"""The closing of accounts after chaos: records, AWS and logs must tell one story."""

import re
from collections import Counter
from typing import TYPE_CHECKING

from cpm.models import Backup, Job, LogLine, Recovery, Snapshot, Step
from tests.domain import recovering
from tests.domain.world import World

if TYPE_CHECKING:
    from tests.system.company import Company

MADE_BY_RECOVERY = "cpm_recovery_id"
MADE_BY_STEP = "cpm_step_id"
COMPLETE = re.compile(r"Snapshot (\S+) of \S+ is complete")


def problems(company: "Company") -> list[str]:
    """What is wrong; nothing, if all is well. Asks AWS without faults."""
    company.aws.clear_faults()
    return [
        *_jobs(),
        *_backups(company),
        *_generations(company),
        *_snapshots(company.world),
        *_recoveries(company),
        *_shares(company),
        *_log_lines(),
        *_secrets(company),
    ]


def _jobs() -> list[str]:
    bad = Job.objects.exclude(state="succeeded").values_list("kind", "pk", "state")
    steps = Step.objects.exclude(state="succeeded").values_list("kind", "pk", "state", "message")
    return [f"job {job}" for job in bad] + [f"step {step}" for step in steps]


def _backups(company: "Company") -> list[str]:
    found = []
    for backup in Backup.objects.exclude(status__in=["B", "D"]):
        found.append(f"backup {backup.pk}: {backup.status} {backup.outcome} {company.world.log(backup)}")
    for backup in Backup.objects.exclude(dr_status__in=["N", "C"]):
        found.append(f"backup {backup.pk}: DR {backup.dr_status} {backup.dr_outcome}")
    scheduled = Backup.objects.filter(policy=company.often).count()
    company.often.refresh_from_db()
    if scheduled + company.often.missed_runs != company.slots or not scheduled:
        found.append(f"{company.slots} slots: {scheduled} backups, {company.often.missed_runs} missed")
    return found


def _generations(company: "Company") -> list[str]:
    found = []
    for policy in company.policies_with_generations():
        alive = Backup.objects.filter(policy=policy, status="B").count()
        ended = Backup.objects.filter(policy=policy, status="D").count()
        if alive != min(policy.generations, alive + ended):
            found.append(f"policy {policy.pk} keeps {policy.generations}: {alive} alive, {ended} deleted")
    return found


def _snapshots(world: World) -> list[str]:
    """Every snapshot and image with our tags is recorded as complete, and every complete one is there."""
    held = world.aws.objects()
    there: Counter[str] = Counter()
    for kind in ("snapshots", "images"):
        ours = [one for one in held[kind] if MADE_BY_STEP in one["tags"] and MADE_BY_RECOVERY not in one["tags"]]
        there.update(f"{one['account']} {one['region']} {one['id']}" for one in ours)
    recorded: Counter[str] = Counter()
    for row in Snapshot.objects.filter(status="completed").exclude(kind="instances"):
        for aws_id in {row.aws_id, *(row.details.get("snapshot_ids") or [])}:
            recorded[f"{row.aws_account_number} {row.region} {aws_id}"] += 1
    orphans = [f"orphan or double: {one}" for one in there - recorded]
    return orphans + [f"not in AWS: {one}" for one in recorded - there]


def _recoveries(company: "Company") -> list[str]:
    world, found, kept = company.world, [], set()
    for recovery in Recovery.objects.all():
        log = recovering.log(recovery)
        if recovery.status != "R":
            found.append(f"recovery {recovery.pk}: {recovery.status} {recovery.outcome} {log}")
            continue
        [made] = recovering.ids(recovery)
        kept.add(made)
        if not any(made in line for line in log):
            found.append(f"recovery {recovery.pk}: the log does not name {made}")
        if made.startswith("i-"):
            kept |= _parts_of(company, recovery, made, found)
        elif world.aws.fingerprint(made) != world.aws.fingerprint(company.disk.aws_id):
            found.append(f"recovery {recovery.pk}: {made} has other bytes")
    left = [
        one["id"]
        for kind in ("volumes", "snapshots", "images", "instances")
        for one in world.aws.objects()[kind]
        if MADE_BY_RECOVERY in one["tags"] and one["state"] != "terminated"
    ]
    found += [f"left over by a recovery: {one}" for one in set(left) - kept]
    found += [f"lost: {one}" for one in kept - set(left) if not one.startswith("eni-")]
    return found


def _parts_of(company: "Company", recovery: Recovery, instance: str, found: list[str]) -> set[str]:
    volumes = recovering.volumes_of(company.world, instance)
    originals = {row.device: row.aws_id for row in company.machine.children.filter(kind="volumes")}
    for device, volume in volumes.items():
        if company.aws.fingerprint(volume["VolumeId"]) != company.aws.fingerprint(originals[device]):
            found.append(f"recovery {recovery.pk}: {device} of {instance} has other bytes")
    if set(volumes) != set(originals):
        found.append(f"recovery {recovery.pk}: {instance} has {sorted(volumes)}")
    return {volume["VolumeId"] for volume in volumes.values()}


def _shares(company: "Company") -> list[str]:
    """Nothing stays shared."""
    found = []
    for kind in ("snapshots", "images"):
        for one in company.aws.objects()[kind]:
            if one.get("shared_with"):
                found.append(f"{one['id']} is still shared with {one['shared_with']}")
    return found


def _log_lines() -> list[str]:
    """Every completed snapshot was told of exactly once."""
    lines: Counter[str] = Counter()
    for message in LogLine.objects.filter(message__contains="is complete").values_list("message", flat=True):
        lines.update(COMPLETE.findall(message))
    made = Snapshot.objects.filter(kind="volumes", succeeded=True, details__snapshot_ids=None)
    return [
        f"{lines[aws_id]} lines tell that {aws_id} is complete"
        for aws_id in made.values_list("aws_id", flat=True)
        if aws_id and lines[aws_id] != 1
    ]


def _secrets(company: "Company") -> list[str]:
    found = []
    for account, (_, secret) in company.aws.keys.items():
        if LogLine.objects.filter(message__contains=secret).exists():
            found.append(f"the secret key of {account} is in a log line")
        if Step.objects.filter(payload__icontains=secret).exists():
            found.append(f"the secret key of {account} is in a step")
    return found



"""A backup run: prepare -> [before script] -> start snapshots -> [after script] and watch -> [complete script] -> finish.

`prepare` asks AWS what the targets look like now and plans the other steps. A target that cannot be backed up
gets a failed snapshot record that says why; the others go on.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from cpm.aws.errors import AwsError
from cpm.aws.gateway import client
from cpm.aws.identity import Identity
from cpm.flows.backups import (
    backup_finish,
    backup_plan,
    backup_s3_sync,
    backup_scripts,
    backup_snapshots,
    backup_whole,
)
from cpm.flows.identities import account_number_of, identity_of
from cpm.flows.messages import alerting
from cpm.flows.server import server_backup
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec
from cpm.jobs.queue import JobSpec
from cpm.lib.states import AutoRemove, BackupStatus, DrStatus, Severity
from cpm.models import Account, Backup, Policy, Target
from cpm.resources import ec2_capture
from cpm.resources.registry import BY_KEY

Kind = tuple[str, str]
"""A region and a resource type."""
KIND = "backup"
SUBJECT = "backup"
QUEUE = "backup"


def job(backup: Backup) -> JobSpec:
    """The job of a new backup record."""
    return JobSpec(KIND, SUBJECT, backup.pk, [StepSpec("backup.prepare")], user_id=backup.user_id)


def prepare(context: StepContext) -> Outcome:
    """Describe the targets and plan the run. AWS errors that may pass raise, and the step is tried again."""
    backup = Backup.objects.select_related("policy", "account").get(pk=context.subject_id)
    policy = backup.policy
    if policy is None or backup.account is None:
        return _nothing(context, "The policy was deleted before the backup began.")
    targets = list(policy.targets.prefetch_related("volumes").order_by("id"))
    server = server_backup.is_for(policy)
    if not targets and not server:
        return _nothing(context, "The policy has no targets. Add at least one.")
    _learn_number(context, backup.account)
    described, unreachable = _describe(context, backup, targets)
    plan = backup_plan.Plan(context, backup, policy)
    if server:
        server_backup.add(plan)
    gone = []
    for target in targets:
        key = (target.aws_region, target.resource_type)
        if key in unreachable:
            plan.fail(target, unreachable[key])
        elif target.aws_resource_id not in described[key]:
            gone.append(target)
        else:
            plan.add(target, described[key])
    for target in gone:
        if policy.auto_remove_resource == AutoRemove.NO:
            plan.fail(target, f"{target.aws_resource_id} no longer exists in {target.aws_region}.")
    specs = plan.finish()

    def write() -> None:
        _remove(context, policy, gone)
        plan.save()
        count = policy.backups_started
        Policy.objects.filter(pk=policy.pk).update(backups_started=count + 1)
        Backup.objects.filter(pk=backup.pk).update(
            status=BackupStatus.IN_PROGRESS, dr_status=_dr_status(policy, count)
        )

    context.log(f"Policy {policy.name}: {len(targets) - len(gone)} of {len(targets)} targets found in AWS.")
    return Done(then=specs, write=write)


def _dr_status(policy: Policy, started_before: int) -> DrStatus:
    if not policy.dr_enabled:
        return DrStatus.NONE
    return DrStatus.PENDING if started_before % max(policy.dr_frequency, 1) == 0 else DrStatus.SKIPPED


def _learn_number(context: StepContext, account: Account) -> None:
    """Records show the account's number; an account given by keys alone is asked for it once."""
    try:
        account_number_of(account, session=f"cpm-job-{context.job_id}")
    except AwsError as error:
        if error.transient:
            raise
        context.warn(error.explain())


def _nothing(context: StepContext, why: str) -> Failed:
    def write() -> None:
        backup_finish.fail(context, why)

    return Failed(why, write=write)


def _describe(
    context: StepContext, backup: Backup, targets: Iterable[Target]
) -> tuple[dict[Kind, dict[str, Any]], dict[Kind, str]]:
    """Per region and type what AWS says of the resources by id, and why it could not be asked."""
    assert backup.account is not None
    identity = identity_of(backup.account, session=f"cpm-backup-{backup.pk}")
    wanted: dict[Kind, dict[str, Target]] = defaultdict(dict)
    for target in targets:
        wanted[target.aws_region, target.resource_type][target.aws_resource_id] = target
    described: dict[Kind, dict[str, Any]] = {}
    unreachable: dict[Kind, str] = {}
    for region, of_ec2 in _together(wanted):
        try:
            described |= _ask(identity, region, of_ec2, wanted)
        except AwsError as error:
            if error.transient:
                raise
            context.error(error.explain())
            unreachable |= {(region, kind): error.explain() for kind in of_ec2}
    return described, unreachable


def _together(wanted: Iterable[Kind]) -> list[tuple[str, tuple[str, ...]]]:
    """The types of each region, in groups that are asked about together: instances and volumes, and every other type."""
    regions = {region for region, kind in wanted if kind in backup_plan.EC2}
    others = [(region, (kind,)) for region, kind in wanted if kind not in backup_plan.EC2]
    return [*((region, backup_plan.EC2) for region in sorted(regions)), *others]


def _ask(
    identity: Identity, region: str, kinds: tuple[str, ...], wanted: Mapping[Kind, Mapping[str, Target]]
) -> dict[Kind, dict[str, Any]]:
    if kinds == backup_plan.EC2:
        ids = [list(wanted.get((region, kind), ())) for kind in kinds]
        found = ec2_capture.describe_all(client(identity, "ec2", region), *ids)
        return {(region, kind): found for kind in kinds}
    kind = BY_KEY[kinds[0]]
    known = {id: target.details for id, target in wanted[region, kind.key].items()}
    return {(region, kind.key): dict(kind.existing(client(identity, kind.service, region), known))}


def _remove(context: StepContext, policy: Policy, gone: list[Target]) -> None:
    """Targets that AWS definitely no longer has leave the policy, if the policy says so."""
    if policy.auto_remove_resource == AutoRemove.NO or not gone:
        return
    names = ", ".join(target.aws_resource_id for target in gone)
    Target.objects.filter(pk__in=[target.pk for target in gone]).delete()
    context.warn(f"No longer in AWS and removed from the policy: {names}.")
    if policy.auto_remove_resource == AutoRemove.ALERT:
        alerting.raise_alert(
            user=policy.user,
            policy=policy,
            category=alerting.TARGET_REMOVED,
            severity=Severity.WARNING,
            title=f"Targets were removed from policy {policy.name}",
            message=f"These resources no longer exist in AWS: {names}.",
            now=context.now,
        )


def prepare_failed(context: StepContext, message: str) -> None:
    """Nothing could be planned: the record must not stay in progress."""
    backup_finish.fail(context, message)


def prepare_cancelled(context: StepContext) -> None:
    backup_finish.fail(context, "Aborted before it began.")


KINDS: tuple[StepKind, ...] = (
    StepKind("backup.prepare", QUEUE, prepare, failed=prepare_failed, cancelled=prepare_cancelled),
    *backup_snapshots.KINDS,
    *backup_whole.KINDS,
    *backup_s3_sync.KINDS,
    *server_backup.KINDS,
    *backup_scripts.KINDS,
    *backup_finish.KINDS,
)

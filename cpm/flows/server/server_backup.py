"""The policy `cpmdata`: this server backs up its own database.

One step dumps the database into a file (`server_dump`), reads it back, and keeps it as an EBS snapshot of the policy's
account (`server_snapshot`). The snapshot's record is like that of any volume, so that retention, deletion, DR and
lists treat it alike. The newest files stay in CPM_SERVER_BACKUP_DIR, as many as the policy has generations.

A dump is never continued: what an interrupted attempt has begun in AWS is deleted, and the next one starts over.
"""

import time
import uuid
from pathlib import Path
from typing import Any

from django.conf import settings

from cpm.aws.errors import AwsError, NotFound
from cpm.aws.gateway import HOME_REGION, AwsClient, client
from cpm.flows import tags
from cpm.flows.backups import watching
from cpm.flows.backups.backup_plan import Plan
from cpm.flows.identities import identity_of
from cpm.flows.server import server_dump, server_snapshot
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec, Wait
from cpm.lib.names import SERVER_DATA
from cpm.lib.states import Role, RunIf, SnapshotKind
from cpm.models import Account, Policy, Snapshot
from cpm.models.base import new_ids

QUEUE = "backup"
RESOURCE_TYPE = "server"
ABORT_CHECK_SECONDS = 2.0


class _Aborted(Exception):
    """The job is to stop; the runner removes what was made."""


def is_for(policy: Policy) -> bool:
    """Whether runs of the policy back up the server: it has the reserved name, and is root's."""
    return policy.name == SERVER_DATA and policy.user.role == Role.ROOT


def region_of(account: Account, session: str) -> str:
    """Where the snapshots of the server's data are: CPM_SERVER_REGION, or a region that every account has."""
    return settings.CPM_SERVER_REGION or HOME_REGION[identity_of(account, session=session).partition]


def add(plan: Plan) -> None:
    """Plan the dump of the database in a run of the policy."""
    backup, policy, account = plan.backup, plan.policy, plan.backup.account
    assert account is not None
    region = region_of(account, f"cpm-backup-{backup.pk}")
    row = Snapshot(
        id=new_ids(Snapshot, 1)[0],
        backup=backup,
        kind=SnapshotKind.VOLUME,
        resource_type=RESOURCE_TYPE,
        account=account,
        account_name=account.name,
        aws_account_number=account.account_number,
        region=region,
        source_id=SERVER_DATA,
        source_name=plan.server.name or "CPM server",
    )
    plan.rows.append(row)
    key = f"start-{row.pk}"
    payload = {
        "account": account.pk,
        "region": region,
        "snapshot": row.pk,
        "generations": policy.generations,
        "server": str(plan.server.server_id),
        "tags": {
            tags.SERVER: str(plan.server.server_id),
            tags.POLICY: policy.name,
            tags.POLICY_ID: str(policy.pk),
            tags.BACKUP: str(backup.pk),
            tags.SOURCE: SERVER_DATA,
            tags.KIND: SERVER_DATA,
            tags.ACCOUNT: account.account_number,
        },
    }
    plan.payloads.append(payload)
    plan.starts.append(StepSpec("server.store", payload, key=key, run_if=RunIf.ENDED))
    watched = {"account": account.pk, "region": region, "rows": [row.pk], "what": "snapshots"}
    plan.watches.append(StepSpec("backup.watch_snapshots", watched, key=f"watch-{key}", after=(key,)))


def store(context: StepContext) -> Outcome:
    """Dump, prove, and keep the database."""
    if context.token is not None:
        return _done(context)
    ebs, ec2 = _client(context, "ebs"), _client(context, "ec2")
    _remove_begun(context, ebs, ec2)
    try:
        path = _dump(context)
        _upload(context, ebs, path)
    except _Aborted:
        return Wait(0.0, message="Stopping.")
    except OSError as error:
        return Failed(f"The database could not be dumped into {settings.CPM_SERVER_BACKUP_DIR}: {error}")
    except server_dump.BadDump as error:
        return Failed(str(error))
    except AwsError as error:
        if not error.transient:
            _remove_begun(context, ebs, ec2)
        raise
    _keep_newest(context.payload["generations"])
    return _done(context)


def _done(context: StepContext) -> Outcome:
    row, snapshot = context.payload["snapshot"], context.token

    def write() -> None:
        Snapshot.objects.filter(pk=row).update(
            aws_id=snapshot["id"],
            start_time=context.now,
            capacity=snapshot["gib"],
            encrypted=snapshot["encrypted"],
        )
        context.log(f"The database is kept in {snapshot['id']} and in {snapshot['file']}.")

    return Done(write=write)


def _dump(context: StepContext) -> Path:
    """A proven dump in its place among the others."""
    folder = Path(settings.CPM_SERVER_BACKUP_DIR)
    part = folder / f"step-{context.step_id}-{context.lease.epoch}.part"
    tick = _Tick(context)
    try:
        server_dump.write(
            part, server_id=context.payload["server"], created=context.now.isoformat(), tick=lambda: tick(5)
        )
        with part.open("rb") as file:
            dump = server_dump.verify(file, tick=lambda: tick(10))
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    context.log(f"Dumped and read back {sum(dump.rows.values())} rows, {part.stat().st_size} bytes.")
    return part.replace(folder / f"cpmdata-{context.now:%Y%m%dT%H%M%SZ}-{context.subject_id}.cpmdump")


def _upload(context: StepContext, ebs: AwsClient, path: Path) -> None:
    attempt = (context.cursor or {}).get("attempt", 0) + 1
    gib = server_snapshot.gib_of(path)
    context.save_cursor({"attempt": attempt, "gib": gib})
    begun = _start(context, ebs)
    context.save_cursor({"attempt": attempt, "gib": gib, "snapshot": begun["SnapshotId"]})
    tick = _Tick(context)
    server_snapshot.put(ebs, begun["SnapshotId"], path, lambda percent: tick(10 + percent * 9 // 10))
    context.remember(
        {"id": begun["SnapshotId"], "gib": gib, "encrypted": bool(begun.get("KmsKeyArn")), "file": path.name}
    )


def _start(context: StepContext, ebs: AwsClient) -> dict[str, Any]:
    """StartSnapshot as the cursor says; the same cursor always gives the same snapshot."""
    attempt, payload = context.cursor["attempt"], context.payload
    marks = {**payload["tags"], tags.STEP: str(context.step_id), "Name": "CPM server data"}
    return ebs.call(
        "StartSnapshot",
        ClientToken=str(uuid.uuid5(uuid.UUID(payload["server"]), f"step {context.step_id} {attempt}")),
        VolumeSize=context.cursor["gib"],
        Description="The database of a CPM server (cpmdata)",
        Tags=tags.as_list(marks),
    )


def _remove_begun(context: StepContext, ebs: AwsClient, ec2: AwsClient) -> None:
    """Delete the snapshot of an interrupted attempt. Its id may have got lost; asking again tells it."""
    if not context.cursor or context.cursor.get("removed"):
        return
    snapshot = context.cursor.get("snapshot") or _start(context, ebs)["SnapshotId"]
    try:
        ec2.call("DeleteSnapshot", SnapshotId=snapshot)
    except NotFound:
        context.log(f"{snapshot} of an interrupted attempt is gone already.")
    else:
        context.log(f"Removed {snapshot} of an interrupted attempt.")
    context.save_cursor({**context.cursor, "removed": True})


def cancel(context: StepContext) -> None:
    """Abort: nothing of this step stays in AWS. The file stays, it is whole."""
    ec2 = _client(context, "ec2")
    if context.token is None:
        _remove_begun(context, _client(context, "ebs"), ec2)
        return
    try:
        ec2.call("DeleteSnapshot", SnapshotId=context.token["id"])
    except NotFound:
        return


class _Tick:
    """Shows progress, keeps the lease honest, and notices an abort."""

    def __init__(self, context: StepContext) -> None:
        self.context, self._checked = context, time.monotonic()

    def __call__(self, percent: int) -> None:
        self.context.progress(percent)
        if time.monotonic() - self._checked > ABORT_CHECK_SECONDS:
            self._checked = time.monotonic()
            if self.context.refresh_aborted():
                raise _Aborted


def _keep_newest(count: int) -> None:
    """Older files go. Those of unfinished dumps too, once they are surely nobody's."""
    folder = Path(settings.CPM_SERVER_BACKUP_DIR)
    for old in sorted(folder.glob("cpmdata-*.cpmdump"))[: -max(count, 1)]:
        old.unlink(missing_ok=True)
    for part in folder.glob("step-*.part"):
        if time.time() - part.stat().st_mtime > 24 * 3600:
            part.unlink(missing_ok=True)


def _client(context: StepContext, service: str) -> AwsClient:
    account = Account.objects.get(pk=context.payload["account"])
    return client(identity_of(account, session=f"cpm-job-{context.job_id}"), service, context.payload["region"])


KINDS = (StepKind("server.store", QUEUE, store, cancel=cancel, failed=watching.mark_failed),)

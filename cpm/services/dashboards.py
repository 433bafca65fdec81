"""What was done lately and what is protected now, in figures. The API, /metrics and nobody else count them here.

Every figure is an integer under its public name; a figure that nothing counts towards is 0.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from cpm import permissions
from cpm.lib.states import BackupStatus, CopyStatus, DrStatus
from cpm.models import Actor
from cpm.resources.registry import DR_KINDS, WHOLE
from cpm.resources.whole import WholeResource

RIGHT = "dashboards.read"
RECENT = timedelta(hours=24)

Figures = dict[str, int]

# The outcome of a backup whose snapshots are gone is the one that it had before.
_BACKUP = {
    BackupStatus.SUCCESSFUL: "backup_success_num",
    BackupStatus.PARTIAL: "backup_partial_num",
    BackupStatus.SOME_FAILED: "backup_partial_num",
    BackupStatus.FAILED: "backup_fail_num",
}
_S3_COPY = {
    CopyStatus.COMPLETED: "backup_s3_success_num",
    CopyStatus.ALL_VALID: "backup_s3_success_num",
    CopyStatus.PARTIAL: "backup_s3_partial_num",
    CopyStatus.FAILED: "backup_s3_fail_num",
}
_DR_SUCCESS, _DR_PARTIAL, _DR_FAIL = "backup_dr_success_num", "backup_dr_partial_num", "backup_dr_fail_num"


def _with_others(figures: Mapping[str, str], list_of: Callable[[WholeResource], str]) -> dict[str, str]:
    """The figures of the contract's own types; another type counts with the one that is recovered like it."""
    like = {kind.recovery_type: figures[list_of(kind)] for kind in WHOLE if list_of(kind) in figures}
    others = {list_of(kind): like[kind.recovery_type] for kind in WHOLE if list_of(kind) and kind.recovery_type in like}
    return {**others, **figures}


_PROTECTED = {
    "dynamodb_tables": "protected_ddb_num",
    "efs": "protected_efs_num",
    "instances": "protected_instances_num",
    "rds_clusters": "protected_rds_clus_num",
    "rds_databases": "protected_rds_db_num",
    "redshift_clusters": "protected_redshift_num",
    "volumes": "protected_volumes_num",
}
# By the list in which the API shows them.
_SNAPSHOTS = {
    "dr_rds_clusters": "snapshots_dr_rds_clus_num",
    "dr_rds_databases": "snapshots_dr_rds_num",
    "dr_volumes": "snapshots_dr_volume_num",
    "dynamodb_tables": "snapshots_ddb_num",
    "efs": "snapshots_efs_num",
    "rds_clusters": "snapshots_rds_clus_num",
    "rds_databases": "snapshots_rds_num",
    "redshift_clusters": "snapshots_redshift_num",
    "volumes": "snapshots_volume_num",
}
_DR_KINDS = sorted(str(kind) for kind in DR_KINDS)

ACTIVITY = tuple(sorted({*_BACKUP.values(), *_S3_COPY.values(), _DR_SUCCESS, _DR_PARTIAL, _DR_FAIL}))
_PROTECTED = _with_others(_PROTECTED, lambda kind: kind.key)
_SNAPSHOTS = _with_others(_with_others(_SNAPSHOTS, lambda kind: kind.kind), lambda kind: kind.dr_kind)
STATE = tuple(sorted({"accounts_num", "policies_num", *_PROTECTED.values(), *_SNAPSHOTS.values()}))

_ACTIVITY_SQL = """
SELECT user_id, coalesce(nullif(status_before_deletion, ''), status), dr_status, s3_copy_status,
       dr_status = %(dr_failed)s AND EXISTS (
           SELECT FROM cpm_snapshot s WHERE s.backup_id = b.id AND s.kind = ANY(%(dr_kinds)s) AND s.succeeded),
       count(*)
FROM cpm_backup b WHERE start_time >= %(since)s {scope} GROUP BY 1, 2, 3, 4, 5
"""
# A resource counts once, however many policies protect it, and not at all if none of them is enabled. The status is a
# literal, because PostgreSQL uses the index of living snapshots for nothing else.
_STATE_SQL = """
SELECT user_id, 'accounts_num', count(*) FROM cpm_account WHERE true {scope} GROUP BY 1
UNION ALL
SELECT user_id, 'policies_num', count(*) FROM cpm_policy WHERE true {scope} GROUP BY 1
UNION ALL
SELECT user_id, 'protected ' || resource_type, count(DISTINCT (aws_region, aws_resource_id))
FROM cpm_target t JOIN cpm_policy p ON p.id = t.policy_id WHERE p.enabled {scope} GROUP BY 1, 2
UNION ALL
SELECT user_id, 'snapshots ' || kind, count(*)
FROM cpm_snapshot s JOIN cpm_backup b ON b.id = s.backup_id
WHERE s.status = 'completed' AND kind = ANY(%(kinds)s) {scope} GROUP BY 1, 2
"""
_NAMES = (
    {"accounts_num": "accounts_num", "policies_num": "policies_num"}
    | {f"protected {kind}": name for kind, name in _PROTECTED.items()}
    | {f"snapshots {kind}": name for kind, name in _SNAPSHOTS.items()}
)


def activity(*, actor: Actor, since: datetime) -> Figures:
    """Outcomes of the backups that started from then on, within the actor's reach, with their DR and S3 copies.

    What still runs, was skipped or was aborted is in none of the figures. A DR is partial if it failed and left copies.
    """
    permissions.require(actor, RIGHT)
    return _sum(ACTIVITY, activity_by_user(since=since, users=permissions.owners(actor.user, RIGHT)))


def state(*, actor: Actor) -> Figures:
    """Accounts, policies, resources in enabled policies, and completed snapshots that exist, within the actor's reach."""
    permissions.require(actor, RIGHT)
    return _sum(STATE, state_by_user(users=permissions.owners(actor.user, RIGHT)))


def activity_by_user(*, since: datetime, users: Sequence[int] | None = None) -> Mapping[int, Figures]:
    """The figures of each of these users, or of everybody, by user id; users without any are left out."""
    found = _empty(ACTIVITY)
    values = {"since": since, "dr_failed": DrStatus.FAILED.value, "dr_kinds": _DR_KINDS}
    for user, status, dr, s3, left_copies, n in _rows(_ACTIVITY_SQL, users, values):
        if dr == DrStatus.COMPLETED:
            dr_name: str | None = _DR_SUCCESS
        elif dr == DrStatus.FAILED:
            dr_name = _DR_PARTIAL if left_copies else _DR_FAIL
        else:
            dr_name = None
        for name in (_BACKUP.get(status), dr_name, _S3_COPY.get(s3)):
            if name:
                found[user][name] += n
    return found


def state_by_user(*, users: Sequence[int] | None = None) -> Mapping[int, Figures]:
    """The figures of each of these users, or of everybody, by user id; users without any are left out."""
    found = _empty(STATE)
    values = {"kinds": list(_SNAPSHOTS)}
    for user, name, n in _rows(_STATE_SQL, users, values):
        if name in _NAMES:
            found[user][_NAMES[name]] += n
    return found


def _rows(sql: str, users: Sequence[int] | None, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    scope = "" if users is None else "AND user_id = ANY(%(users)s)"
    with connection.cursor() as cursor:
        # Only this module's own words are put into the text.
        cursor.execute(sql.format(scope=scope), {**values, "users": list(users or ())})
        return cursor.fetchall()


def _empty(names: Sequence[str]) -> defaultdict[int, Figures]:
    return defaultdict(lambda: dict.fromkeys(names, 0))


def _sum(names: Sequence[str], by_user: Mapping[int, Figures]) -> Figures:
    return {name: sum(figures[name] for figures in by_user.values()) for name in names}

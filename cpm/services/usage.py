"""Usage records: what each account protects, counted once a day and whenever somebody asks."""

from collections.abc import Sequence
from datetime import UTC, date, datetime

import structlog
from django.db import connection

from cpm.models import Account, UsageRecord

log = structlog.get_logger(__name__)

# A resource counts once, in however many policies of the account it is, as it does for the limits of users. Details of
# what is measured in GiB say how many as `capacity`. DR accounts protect nothing themselves. Accounts are taken in one order, so that two who count at once do not deadlock.
_COUNT = """
INSERT INTO cpm_usagerecord (day, report_time, user_id, username, account_id, account_name, instances, instances_dr,
    instances_s3, independent_volumes_gib, rds_gib, redshift_gib, dynamodb_gib, efs, controlled_entities,
    scanning_tags, capturing_vpcs)
SELECT %(day)s, %(now)s, u.id, u.username, a.id, a.name,
    count(r.*) FILTER (WHERE r.resource_type = 'instances'),
    count(r.*) FILTER (WHERE r.resource_type = 'instances' AND r.dr),
    count(r.*) FILTER (WHERE r.resource_type = 'instances' AND r.s3),
    coalesce(sum(r.gib) FILTER (WHERE r.resource_type = 'volumes'), 0),
    coalesce(sum(r.gib) FILTER (WHERE r.resource_type IN ('rds_databases', 'rds_clusters')), 0),
    coalesce(sum(r.gib) FILTER (WHERE r.resource_type = 'redshift_clusters'), 0),
    coalesce(sum(r.gib) FILTER (WHERE r.resource_type = 'dynamodb_tables'), 0),
    count(r.*) FILTER (WHERE r.resource_type = 'efs'),
    0,
    a.scan_tagged_resources AND coalesce(s.scan_resources, false),
    a.capture_vpcs AND coalesce(s.capture_vpcs, false)
FROM cpm_account a
JOIN cpm_user u ON u.id = a.user_id
LEFT JOIN cpm_serversettings s ON true
LEFT JOIN (
    SELECT p.account_id, t.resource_type, bool_or(p.dr_enabled) AS dr, bool_or(p.enabled AND p.s3_enabled) AS s3,
        max(CASE jsonb_typeof(t.details -> 'capacity') WHEN 'number' THEN (t.details -> 'capacity')::numeric END) AS gib
    FROM cpm_target t JOIN cpm_policy p ON p.id = t.policy_id
    GROUP BY p.account_id, t.resource_type, t.aws_region, t.aws_resource_id
) r ON r.account_id = a.id
WHERE NOT a.is_dr_account AND (%(users)s::bigint[] IS NULL OR a.user_id = ANY(%(users)s::bigint[]))
GROUP BY u.id, a.id, s.scan_resources, s.capture_vpcs
ORDER BY a.id
ON CONFLICT (account_id, day) DO UPDATE SET
    report_time = excluded.report_time, user_id = excluded.user_id, username = excluded.username,
    account_name = excluded.account_name, instances = excluded.instances, instances_dr = excluded.instances_dr, instances_s3 = excluded.instances_s3,
    independent_volumes_gib = excluded.independent_volumes_gib, rds_gib = excluded.rds_gib,
    redshift_gib = excluded.redshift_gib, dynamodb_gib = excluded.dynamodb_gib, efs = excluded.efs,
    scanning_tags = excluded.scanning_tags, capturing_vpcs = excluded.capturing_vpcs
WHERE cpm_usagerecord.report_time <= excluded.report_time
"""


def day_of(moment: datetime) -> date:
    """The day, by UTC, under which usage is recorded."""
    return moment.astimezone(UTC).date()


def refresh(*, now: datetime, users: Sequence[int] | None = None) -> int:
    """Count what the accounts of these users, or of all, protect today (UTC). Returns how many were written.

    May be called at any time by any number of processes: a day has one record per account, and the latest count
    stays. What an account protected on the days before is not touched.
    """
    held = {"day": day_of(now), "now": now, "users": list(users) if users is not None else None}
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, held)
        return cursor.rowcount


def refresh_daily(*, now: datetime) -> int:
    """Count if an account has no record of today (UTC) yet; returns how many were written."""
    today = UsageRecord.objects.filter(day=day_of(now)).values("account_id")
    if not Account.objects.filter(is_dr_account=False).exclude(pk__in=today).exists():
        return 0
    counted = refresh(now=now)
    log.info("usage counted", accounts=counted)
    return counted

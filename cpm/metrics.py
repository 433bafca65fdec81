"""/metrics: what Prometheus reads, taken from the database at each scrape.

Nothing is counted in process memory, so every API process answers the same and a restart loses nothing. A scrape
costs a fixed number of aggregate queries over indexes; only the series of policies and repositories grow in number.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from cpm.lib.states import CopyStatus, DrStatus, JobState, Role, Severity, VerifyResult
from cpm.models import User
from cpm.services import dashboards

# A scrape must never queue up behind a slow database and take the API's connections with it.
STATEMENT_TIMEOUT_MS = 5000

_POLICIES = """
SELECT p.id::text, p.name, u.username, p.enabled::int,
       extract(epoch FROM now() - p.last_success_at), p.missed_runs, p.consecutive_failures,
       extract(epoch FROM p.retention_stuck_since),
       (SELECT extract(epoch FROM min(s.next_run_at)) FROM cpm_policyschedule s WHERE s.policy_id = p.id),
       extract(epoch FROM now() - p.created_at)
FROM cpm_policy p JOIN cpm_user u ON u.id = p.user_id ORDER BY p.id
"""
_BACKLOG = """
SELECT queue, CASE WHEN pending_after > 0 THEN 'blocked' ELSE state END, count(*),
       extract(epoch FROM now() - min(not_before) FILTER (WHERE pending_after = 0 AND not_before <= now()
                                                          AND state IN ('ready', 'waiting')))
FROM cpm_step WHERE state IN ('ready', 'waiting', 'running') GROUP BY 1, 2
"""
# Queues at places, such as s3@123456789012:eu-west-1, are served by the workers of that place.
_WORKERS = """
SELECT served, count(*), coalesce(sum(concurrency), 0) FROM cpm_fleetmember, unnest(queues) AS served
WHERE kind = 'worker' AND last_seen_at > now() - interval '1 minute' GROUP BY 1 ORDER BY 1
"""
# Outcomes are gauges over a window, since records are deleted in time and a true counter would fall.
_JOBS = """
SELECT kind, state, count(*) FROM cpm_job
WHERE state IN ('queued', 'running') OR finished_at > now() - interval '24 hours' GROUP BY 1, 2
"""
_ALERTS = "SELECT severity, count(*) FROM cpm_alert GROUP BY 1"
_COPIES = """
SELECT dr_status, s3_copy_status, status, count(*) FROM cpm_backup
WHERE start_time > now() - interval '24 hours' GROUP BY 1, 2, 3
"""
_REPOSITORIES = """
SELECT r.id::text, r.name, u.username, extract(epoch FROM r.last_verified_at), r.last_verify_result,
       r.bytes_stored, r.copies_stored,
       (SELECT count(*) FROM cpm_s3copy c WHERE c.repository_id = r.id AND c.damaged AND c.status = 'completed'),
       CASE WHEN r.verify_every_days > 0 THEN extract(epoch FROM now() - coalesce(r.last_verified_at, r.created_at)
                                                      - r.verify_every_days * interval '1 day') END
FROM cpm_s3repository r JOIN cpm_user u ON u.id = r.user_id ORDER BY r.id
"""
_SERVER = """
SELECT (SELECT extract(epoch FROM last_cleanup_time) FROM cpm_serversettings WHERE id = 1),
       (SELECT extract(epoch FROM now() - max(last_seen_at)) FROM cpm_fleetmember WHERE kind = 'beat'),
       (SELECT count(*) FROM cpm_fleetmember WHERE kind = 'worker' AND last_seen_at > now() - interval '1 minute'),
       (SELECT count(*) FROM cpm_policyschedule WHERE next_run_at <= now())
"""


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """The metrics in Prometheus' text format; 503 from the error handling of the server if the database is away."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(DatabaseCollector())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class DatabaseCollector(Collector):
    """Reads all metrics in one transaction, so that they fit together."""

    def collect(self) -> Iterator[Metric]:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")
            answers = []
            for statement in (_POLICIES, _BACKLOG, _WORKERS, _JOBS, _ALERTS, _COPIES, _REPOSITORIES, _SERVER):
                cursor.execute(statement)
                answers.append(cursor.fetchall())
            usernames = dict(
                User.objects.exclude(role=Role.DELEGATE).order_by("id").values_list("id", "username")
            )
            activity = dashboards.activity_by_user(since=timezone.now() - dashboards.RECENT)
            state = dashboards.state_by_user()
        policies, backlog, workers, jobs, alerts, copies, repositories, server = answers
        yield from _policy_metrics(policies)
        yield from _queue_metrics(backlog)
        yield from _worker_metrics(workers)
        yield from _job_metrics(jobs)
        yield from _alert_metrics(alerts)
        yield from _backup_metrics(copies)
        yield from _repository_metrics(repositories)
        yield from _server_metrics(server[0])
        yield from _dashboard_metrics("activity", dashboards.ACTIVITY, usernames, activity)
        yield from _dashboard_metrics("state", dashboards.STATE, usernames, state)


def _gauge(name: str, text: str, labels: Sequence[str] = ()) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"cpm_{name}", text, labels=labels)


def _policy_metrics(rows: Sequence[Sequence[Any]]) -> Iterator[Metric]:
    labels = ["policy_id", "policy", "user"]
    # (column, metric, help); a null gives no sample.
    columns = [
        (3, "policy_enabled", "1 if the policy runs on its schedules."),
        (
            4,
            "policy_last_success_age_seconds",
            "Seconds since the last fully successful backup; absent if there was none.",
        ),
        (5, "policy_missed_runs", "Scheduled runs that never started."),
        (6, "policy_consecutive_failures", "Failed backups since the last success."),
        (
            7,
            "policy_retention_stuck_since_seconds",
            "Unix time since which retention deletes nothing; absent if it works.",
        ),
        (8, "policy_next_run_seconds", "Unix time of the next scheduled run."),
        (9, "policy_age_seconds", "Seconds since the policy was made."),
    ]
    for column, name, text in columns:
        family = _gauge(name, text, labels)
        for row in rows:
            if row[column] is not None:
                family.add_metric([row[0], row[1], row[2]], float(row[column]))
        yield family


def _queue_metrics(rows: Sequence[Sequence[Any]]) -> Iterator[Metric]:
    steps = _gauge(
        "queue_steps", "Steps that are not over; blocked ones wait for other steps.", ["queue", "state"]
    )
    ages: dict[str, float] = {}
    for queue, state, count, age in rows:
        steps.add_metric([queue, state], count)
        ages[queue] = max(ages.get(queue, 0.0), float(age or 0))
    yield steps
    oldest = _gauge(
        "queue_oldest_due_age_seconds", "How long the oldest due step has been waiting.", ["queue"]
    )
    for queue, age in sorted(ages.items()):
        oldest.add_metric([queue], age)
    yield oldest


def _worker_metrics(rows: Sequence[Sequence[Any]]) -> Iterator[Metric]:
    members = _gauge("queue_workers", "Workers heard from in the last minute that serve the queue.", ["queue"])
    slots = _gauge("queue_slots", "Steps that these workers can do at a time.", ["queue"])
    for queue, count, concurrency in rows:
        members.add_metric([queue], count)
        slots.add_metric([queue], concurrency)
    yield members
    yield slots


def _job_metrics(rows: Sequence[Sequence[Any]]) -> Iterator[Metric]:
    open_jobs = _gauge("jobs_open", "Jobs that are not over.", ["kind", "state"])
    finished = _gauge("jobs_finished_24h", "Jobs that ended in the last 24 hours.", ["kind", "state"])
    for kind, state, count in rows:
        family = open_jobs if state in {JobState.QUEUED, JobState.RUNNING} else finished
        family.add_metric([kind, state], count)
    yield open_jobs
    yield finished


def _alert_metrics(rows: Sequence[Sequence[Any]]) -> Iterator[Metric]:
    family = _gauge("alerts", "Alerts that are raised now.", ["severity"])
    found = {row[0]: row[1] for row in rows}
    for severity in Severity:
        family.add_metric([severity.name.lower()], found.get(severity.value, 0))
    yield family


def _backup_metrics(rows: Sequence[Sequence[Any]]) -> Iterator[Metric]:
    totals: dict[tuple[str, str], int] = {}
    for dr, s3, status, count in rows:
        for what, letter in (("backup", status), ("dr", dr), ("s3", s3)):
            totals[what, letter] = totals.get((what, letter), 0) + count
    backups = _gauge("backups_24h", "Backups started in the last 24 hours, by status letter.", ["status"])
    dr_copies = _gauge("dr_24h", "DR outcomes of backups started in the last 24 hours.", ["status"])
    s3_copies = _gauge("s3_copy_24h", "S3 copy outcomes of backups started in the last 24 hours.", ["status"])
    dr_names = {member.value: member.name.lower() for member in DrStatus}
    s3_names = {member.value: member.name.lower() for member in CopyStatus}
    for (what, letter), count in sorted(totals.items()):
        if what == "backup":
            backups.add_metric([letter], count)
        elif what == "dr":
            dr_copies.add_metric([dr_names[letter]], count)
        else:
            s3_copies.add_metric([s3_names[letter]], count)
    yield from (backups, dr_copies, s3_copies)


def _repository_metrics(rows: Sequence[Sequence[Any]]) -> Iterator[Metric]:
    labels = ["repository_id", "repository", "user"]
    columns = [
        (3, "last_verified_time_seconds", "Unix time of the last verification; absent if there was none."),
        (5, "bytes", "Bytes in the bucket, as of the last verification or cleanup."),
        (6, "copies", "Copies in the bucket, as of the last verification or cleanup."),
        (7, "damaged_copies", "Copies that the last verification could not read completely."),
        (
            8,
            "verification_overdue_seconds",
            "Seconds since a verification was due; negative before that, absent if never.",
        ),
    ]
    for column, name, text in columns:
        family = _gauge(f"repository_{name}", text, labels)
        for row in rows:
            if row[column] is not None:
                family.add_metric(list(row[:3]), float(row[column]))
        yield family
    results = _gauge(
        "repository_last_verify_result", "1 for how the last verification ended.", [*labels, "result"]
    )
    for row in rows:
        for result in VerifyResult:
            results.add_metric([*row[:3], result.value], float(row[4] == result))
    yield results


def _server_metrics(row: Sequence[Any]) -> Iterator[Metric]:
    names = [
        ("last_cleanup_time_seconds", "Unix time of the last periodic cleanup."),
        ("last_tick_age_seconds", "Seconds since the last tick of the scheduler was noted."),
        ("workers_seen", "Workers heard from in the last minute."),
        ("schedules_due", "Scheduled runs that are due and not started yet."),
    ]
    for value, (name, text) in zip(row, names, strict=True):
        family = _gauge(name, text)
        if value is not None:
            family.add_metric([], float(value))
        yield family


def _dashboard_metrics(
    board: str, names: Sequence[str], usernames: Mapping[int, str], by_user: Mapping[int, Mapping[str, int]]
) -> Iterator[Metric]:
    """The figures of the API's dashboards under the same names, for each user what is their own."""
    for name in names:
        family = _gauge(
            f"dashboard_{board}_{name}", f"{name} of GET /api/system/dashboard/{board}/.", ["user"]
        )
        for user, username in usernames.items():
            family.add_metric([username], by_user[user][name] if user in by_user else 0)
        yield family

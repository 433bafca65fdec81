"""Looking for strays in AWS, once a day in every account that holds snapshots of ours."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import structlog
from django.db import transaction

from cpm.flows.cleanup import strays, whole_strays
from cpm.jobs import queue
from cpm.jobs.kinds import StepSpec
from cpm.models import Account, Job, Snapshot, Step

log = structlog.get_logger(__name__)

QUEUES = {kind.name: kind.queue for kind in (*strays.KINDS, *whole_strays.KINDS)}
# The jobs of a day begin one after the other, so that backups and cleanups need not wait behind all of them.
SPACING = timedelta(seconds=30)
LATEST = timedelta(hours=20)


def look(*, now: datetime) -> list[Job]:
    """Start the job of the day (UTC) for each account that has none yet and of whose snapshots there are records.

    Any number of processes may call this at once, and as often as they like.
    """
    since = now.replace(hour=0, minute=0, second=0, microsecond=0)
    regions = _regions(_unseen(list(Account.objects.all()), since))
    if not regions:
        return []
    with transaction.atomic():
        # Whoever else does this waits at the accounts, and then sees the jobs. Rows that refer to accounts do not wait.
        held = (
            Account.objects.select_for_update(of=("self",), no_key=True).filter(pk__in=regions).order_by("pk")
        )
        specs = [
            strays.job(account, _steps(account, regions[account.pk], now + min(place * SPACING, LATEST)))
            for place, account in enumerate(_unseen(list(held), since))
        ]
        jobs = queue.create_jobs(specs, engine_queues=QUEUES)
    log.info("looking for strays", accounts=len(jobs))
    return jobs


def _steps(account: Account, regions: Sequence[str], due: datetime) -> list[StepSpec]:
    """Steps for each region, and one more for each type whose strays are looked for where the account has, or had, any."""
    rows = Snapshot.objects.filter(account=account, resource_type__in=whole_strays.TYPES)
    places = rows.order_by("region", "resource_type").values_list("region", "resource_type").distinct()
    return [
        *strays.steps(account, regions, not_before=due), *whole_strays.steps(account, list(places), not_before=due)
    ]


def _unseen(accounts: Sequence[Account], since: datetime) -> list[Account]:
    """The accounts without a job since then."""
    jobs = Job.objects.filter(
        kind=strays.KIND,
        subject_type=strays.SUBJECT,
        subject_id__in={account.user_id for account in accounts},
        created_at__gte=since,
    )
    seen = set(Step.objects.filter(job__in=jobs).values_list("payload__account", flat=True))
    return [account for account in accounts if account.pk not in seen]


def _regions(accounts: Sequence[Account]) -> Mapping[int, list[str]]:
    """Where each account holds, or held, snapshots or copies; without the accounts that hold none."""
    rows = Snapshot.objects.filter(account__in=accounts).order_by("account_id", "region")
    found: dict[int, list[str]] = defaultdict(list)
    for account, region in rows.values_list("account_id", "region").distinct():
        assert account is not None
        found[account].append(region)
    return found

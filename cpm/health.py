"""/healthz: whether this server can do its duty now."""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

import structlog
from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from cpm.jobs import broker, fleet
from cpm.lib.states import FleetKind
from cpm.models import FleetMember

log = structlog.get_logger(__name__)

# The tick notes itself every ten seconds; workers do so with their heartbeat.
TICK_STALE_SECONDS = 60.0
WORKER_GONE_AFTER = timedelta(seconds=fleet.GONE_AFTER_SECONDS)


@dataclass(frozen=True, slots=True)
class Health:
    """`last_tick_age` is in seconds, null before the first tick; `workers` counts those heard from lately."""

    database: bool
    redis: bool
    last_tick_age: float | None
    workers: int

    @property
    def serving(self) -> bool:
        """Whether this process can answer API requests."""
        return self.database and self.redis

    @property
    def working(self) -> bool:
        """Whether the work that requests start is also being done."""
        ticking = self.last_tick_age is not None and self.last_tick_age < TICK_STALE_SECONDS
        return self.serving and ticking and self.workers > 0


@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """200 while this process can serve, else 503; `status` is ok, degraded (nothing is being done) or failing.

    Probes that restart or start the API ask for no more than that: its workers start after it. Monitoring asks
    with `?fleet=1`, which makes degraded a 503 too.
    """
    health = check(now=timezone.now())
    status = "ok" if health.working else "degraded" if health.serving else "failing"
    well = health.working if request.GET.get("fleet") else health.serving
    return JsonResponse({"status": status, **asdict(health)}, status=200 if well else 503)


def check(*, now: datetime) -> Health:
    """The state of the parts, from the database and a ping to Redis; never raises for one that is away."""
    last_tick_age, workers, database = None, 0, True
    try:
        for member in FleetMember.objects.all():
            if member.kind == FleetKind.BEAT:
                age = (now - member.last_seen_at).total_seconds()
                last_tick_age = age if last_tick_age is None else min(age, last_tick_age)
            elif member.kind == FleetKind.WORKER and now - member.last_seen_at < WORKER_GONE_AFTER:
                workers += 1
    except DatabaseError as error:
        log.warning("health: database away", error=str(error))
        connection.close()
        database = False
    return Health(database, broker.answers(), last_tick_age, workers)

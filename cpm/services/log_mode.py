"""How much this server's processes write to their logs: as they were started, or everything (DEBUG)."""

import threading
import time

import structlog
from django.conf import settings as django_settings
from django.db import Error, connection

from cpm.lib import logs
from cpm.lib.states import LogMode
from cpm.models import Actor, ServerSettings
from cpm.models.server import ONLY_ROW
from cpm.services import settings

log = structlog.get_logger(__name__)


def change(*, actor: Actor, mode: LogMode) -> ServerSettings:
    """The mode of all processes; each takes it up within seconds of its work."""
    return settings.change(actor, "log_mode", {"log_mode": mode})


def level_of(mode: str) -> str:
    """The level that processes log at in this mode."""
    level: str = "DEBUG" if mode == LogMode.DEBUG else django_settings.CPM_LOG_LEVEL
    return level


class _Follower:
    """The mode in force in this process. It looks into the database every `CPM_FOLLOW_SECONDS` at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looked = float("-inf")
        self._mode: str = LogMode.STANDARD

    def follow(self) -> None:
        every = django_settings.CPM_FOLLOW_SECONDS
        if not every or time.monotonic() - self._looked < every or not self._lock.acquire(blocking=False):
            return
        try:
            # Before the query: a database that does not answer must not be asked by every request.
            self._looked = time.monotonic()
            found = (
                ServerSettings.objects.filter(pk=ONLY_ROW).values_list("log_mode", flat=True).first()
            )
            self._use(found or LogMode.STANDARD)
        finally:
            self._lock.release()

    def forget(self) -> None:
        """As if just started."""
        self._looked = float("-inf")
        self._use(LogMode.STANDARD)

    def _use(self, mode: str) -> None:
        if mode == self._mode:
            return
        logs.set_level(level_of(mode))
        self._mode = mode
        log.info("log mode changed", mode=mode)


_follower = _Follower()
forget = _follower.forget


def follow() -> None:
    """Takes up a changed mode. Cheap to call as often as one likes; a database that is away changes nothing."""
    try:
        _follower.follow()
    except Error as error:
        connection.close()
        log.warning("log mode not read", error=str(error))

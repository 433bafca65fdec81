"""Redis, as far as the domain has to do with it: whether it is there."""

import redis
import structlog
from django.conf import settings

log = structlog.get_logger(__name__)

TIMEOUT_SECONDS = 2.0


def answers() -> bool:
    """Whether Redis answers a ping in time; never raises."""
    url = settings.REDIS_URL.replace("redis+socket://", "unix://").replace("virtual_host=", "db=")
    try:
        with redis.Redis.from_url(
            url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS
        ) as server:
            return bool(server.ping())
    except redis.RedisError as error:
        log.warning("redis away", error=str(error))
        return False

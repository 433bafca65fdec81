"""The Django application: sets up logging and the AWS gateway once, when Django starts."""

import logging
import sys

import structlog
from django.apps import AppConfig
from django.conf import settings

from cpm.aws import gateway
from cpm.aws.throttle import DEFAULT_RATES, Rate


def configure_logging() -> None:
    """One JSON line per event on stderr; values that look like secrets are masked."""
    logging.basicConfig(format="%(message)s", level=settings.CPM_LOG_LEVEL)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *settings.CPM_LOG_PROCESSORS,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.CPM_LOG_LEVEL)),
        # Not bound to the stderr of this moment: tests and supervisors replace it. Stdout belongs to commands.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _rates() -> dict[str, Rate]:
    factor = settings.CPM_AWS_RATE_FACTOR
    return {name: Rate(rate.burst * factor, rate.per_second * factor) for name, rate in DEFAULT_RATES.items()}


class CpmConfig(AppConfig):
    """Registers the models of `cpm.models` under the label `cpm`."""

    name = "cpm"
    label = "cpm"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        configure_logging()
        gateway.configure(
            gateway.GatewayConfig(
                endpoint_url=settings.CPM_AWS_ENDPOINT_URL or None,
                redis_url=settings.REDIS_URL,
                rates=_rates(),
            )
        )

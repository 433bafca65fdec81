"""The Django application: sets up logging and the AWS gateway once, when Django starts."""

from django.apps import AppConfig
from django.conf import settings
from django.utils.module_loading import import_string

from cpm.aws import gateway
from cpm.aws.throttle import DEFAULT_RATES, Rate
from cpm.lib import logs

# By name: services need the models, which are not loaded yet when this module is.
PROXY_SOURCE = "cpm.services.proxy.in_force"


def _rates() -> dict[str, Rate]:
    factor = settings.CPM_AWS_RATE_FACTOR
    return {name: Rate(rate.burst * factor, rate.per_second * factor) for name, rate in DEFAULT_RATES.items()}


class CpmConfig(AppConfig):
    """Registers the models of `cpm.models` under the label `cpm`."""

    name = "cpm"
    label = "cpm"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        logs.configure(settings.CPM_LOG_LEVEL, settings.CPM_LOG_PROCESSORS)
        every = settings.CPM_FOLLOW_SECONDS
        gateway.configure(
            gateway.GatewayConfig(
                endpoint_url=settings.CPM_AWS_ENDPOINT_URL or None,
                redis_url=settings.REDIS_URL,
                rates=_rates(),
            ),
            gateway.Following(import_string(PROXY_SOURCE), every) if every else None,
        )

"""The web proxy that a worker near its data takes to AWS, as the configuration of its place says."""

from cpm.aws.proxy import Proxy
from cpm.flows.identities import decrypt_secret
from cpm.models import WorkerConfiguration


def of(configuration: WorkerConfiguration) -> Proxy | None:
    """The proxy of a configuration, if it asks for one. Raises `SecretUnreadable` when its password cannot be opened."""
    if not configuration.requires_http_proxy:
        return None
    password = configuration.http_proxy_password
    return Proxy(
        configuration.http_proxy_address,
        configuration.http_proxy_port or 0,
        configuration.http_proxy_user_name,
        decrypt_secret(password) if password else "",
    )


def at(place: str) -> Proxy | None:
    """The proxy of a place (`cpm.lib.places`), None without one. Raises what `of` raises.

    Several users may have accounts of one number. The oldest configuration counts, so that nobody can turn the
    traffic of a worker that runs already by writing another.
    """
    number, _, region = place.partition(":")
    row = (
        WorkerConfiguration.objects.filter(account__account_number=number, region__aws_region=region)
        .order_by("pk")
        .first()
        if place
        else None
    )
    return of(row) if row else None

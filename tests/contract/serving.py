"""What a populated server needs around it: a proxy that lets it reach AWS, and a certificate that it serves."""

import tempfile
from functools import cache
from pathlib import Path

from django.conf import settings

from cpm.models import ProxySettings
from tests import certificates, loopback_proxy


@cache
def _proxy() -> loopback_proxy.LoopbackProxy:
    """One for the whole run; it ends with the process."""
    return loopback_proxy.start()[1]


@cache
def _certificate() -> str:
    return str(certificates.write(Path(tempfile.mkdtemp(prefix="cpm-certificate-")))[0])


def prepare() -> dict[str, object]:
    """Names for the recipes. The stored proxy is switched off, so that nothing else goes through it."""
    settings.CPM_TLS_CERTIFICATE_FILE = _certificate()
    proxy = _proxy()
    ProxySettings.objects.update_or_create(
        pk=1, defaults={"address": proxy.address, "port": proxy.port, "enabled": False}
    )
    return {"proxy_address": proxy.address, "proxy_port": proxy.port}

"""The TLS certificate that clients of this server see."""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from django.conf import settings as django_settings

from cpm import permissions
from cpm.lib.errors import DomainError, NotFound
from cpm.models import Actor

RIGHT = "settings.read"


class NoCertificate(NotFound):
    """This server knows of no certificate; the text says what to do."""

    code = "no_certificate"
    template = "{reason}"

    def __init__(self, reason: str) -> None:
        DomainError.__init__(self, reason=reason)


def pem(*, actor: Actor) -> bytes:
    """The certificate and those after it in its file, as PEM; never a key that stands there too.

    Raises `NoCertificate` when none is configured or the file has none.
    """
    permissions.require(actor, RIGHT)
    name = django_settings.CPM_TLS_CERTIFICATE_FILE
    if not name:
        raise NoCertificate(
            "This server serves no certificate of its own. Start it with `cpm api --certificate FILE --key FILE`, or name the one of the proxy before it in "
            "CPM_TLS_CERTIFICATE_FILE."
        )
    try:
        found = x509.load_pem_x509_certificates(Path(name).read_bytes())
    except (OSError, ValueError):
        raise NoCertificate(
            "The certificate file of this server cannot be read. Check that CPM_TLS_CERTIFICATE_FILE names a PEM file that the server's user may read."
        ) from None
    return b"".join(one.public_bytes(Encoding.PEM) for one in found)

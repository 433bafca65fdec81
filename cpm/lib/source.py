"""Where a request comes from. A forwarding header counts only as far as trusted proxies have written it."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

# Stands for peers that connect through a Unix socket and so have no address.
SOCKET = "socket"
# Whoever has one IPv6 address has all of its /64.
IPV6_PREFIX = 64

Address = IPv4Address | IPv6Address
Trusted = Sequence[IPv4Network | IPv6Network | str]


def trusted_proxies(text: str) -> Trusted:
    """Networks and addresses with commas between them, or `socket`. Raises ValueError for anything else."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return tuple(part if part == SOCKET else ip_network(part) for part in parts)


def client_address(peer: str, forwarded: str, trusted: Trusted) -> str:
    """The address that the request came from, as far as it can be believed.

    `peer` is the other end of the connection, empty for a socket; `forwarded` is the X-Forwarded-For header, to whose
    end each proxy appends the address that it saw. The last one that no trusted proxy has counts.
    """
    known = peer
    for hop in reversed([part.strip() for part in forwarded.split(",")]):
        if not _is_trusted(known, trusted):
            break
        address = _address(hop)
        if address is None:
            break
        known = str(address)
    return known


def group_of(address: str) -> str:
    """What counts as one source: an IPv4 address, an IPv6 network, or the text if it is no address."""
    found = _address(address)
    if isinstance(found, IPv6Address):
        return str(IPv6Network((found, IPV6_PREFIX), strict=False))
    return address if found is None else str(found)


def _is_trusted(address: str, trusted: Trusted) -> bool:
    if not address:
        return SOCKET in trusted
    found = _address(address)
    return found is not None and any(found in network for network in trusted if not isinstance(network, str))


def _address(text: str) -> Address | None:
    # Proxies write a port, and brackets around IPv6, in places: 10.0.0.1:4711, [2001:db8::1]:4711.
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found

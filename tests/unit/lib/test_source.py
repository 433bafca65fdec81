"""Which address a request is taken to come from."""

import pytest

from cpm.lib.source import client_address, group_of, trusted_proxies

PROXY = "10.0.0.1"
TRUSTED = trusted_proxies("10.0.0.0/8, 2001:db8::1")


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.5", "", "203.0.113.5"),
        ("203.0.113.5", "198.51.100.7", "203.0.113.5"),
        (PROXY, "198.51.100.7", "198.51.100.7"),
        (PROXY, "192.0.2.1, 198.51.100.7", "198.51.100.7"),
        (PROXY, "192.0.2.1, 198.51.100.7, 10.9.9.9", "198.51.100.7"),
        (PROXY, "198.51.100.7:4711", "198.51.100.7"),
        (PROXY, "[2001:db8:1::5]:4711", "2001:db8:1::5"),
        ("2001:db8::1", "::ffff:198.51.100.7", "198.51.100.7"),
        (PROXY, "unknown", PROXY),
        (PROXY, "", PROXY),
        (PROXY, "10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ("", "198.51.100.7", ""),
    ],
)
def test_a_header_counts_as_far_as_trusted_proxies_wrote_it(peer, forwarded, expected):
    assert client_address(peer, forwarded, TRUSTED) == expected


def test_without_trusted_proxies_the_header_counts_for_nothing():
    assert client_address(PROXY, "198.51.100.7", trusted_proxies("")) == PROXY


def test_a_socket_has_no_address_and_can_be_trusted():
    assert client_address("", "198.51.100.7", trusted_proxies("socket")) == "198.51.100.7"


def test_what_is_no_network_is_refused():
    with pytest.raises(ValueError, match="nonsense"):
        trusted_proxies("10.0.0.0/8, nonsense")


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("cpm command", "cpm command"),
        ("", ""),
    ],
)
def test_a_whole_ipv6_network_is_one_source(address, group):
    assert group_of(address) == group

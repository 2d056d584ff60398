"""Parsing IP addresses that come from outside."""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse(text: str) -> Address:
    """Parse an address. An IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2) becomes IPv4. Raises `ValueError`."""
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_of_one_machine_elsewhere(address: Address) -> bool:
    """Return whether another machine can have it: it is not loopback, link-local, multicast, unspecified or reserved."""
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address.is_reserved
    )

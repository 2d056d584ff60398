"""Reading IP addresses that come from outside."""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse(text: str) -> Address:
    """Read an address. One that is mapped from IPv4 into IPv6 (RFC 4291, 2.5.5.2) becomes IPv4. Raises `ValueError`."""
    found = ipaddress.ip_address(text)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def is_of_one_machine_elsewhere(address: Address) -> bool:
    """Tell whether another machine can have it: it is not loopback, link-local, multicast, unspecified or reserved."""
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address.is_reserved
    )

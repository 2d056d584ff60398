"""Validation of addresses and address ranges (apimachinery, `util/validation/ip.go`)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from cumulet.kube.schema.validation.field_errors import Causes, invalid

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_ADDRESS = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
_NETWORK = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
_OCTETS = re.compile(r"\d+\.\d+\.\d+\.\d+\Z", re.ASCII)
_LINK_LOCAL_GROUPS = (ipaddress.ip_network("224.0.0.0/24"), ipaddress.ip_network("ff02::/16"))


def parsed(text: str) -> Address | None:
    """Return an address, or `None` for an invalid one. Leading zeros are decimal, as in older releases of Go."""
    if _OCTETS.match(text):
        text = ".".join(str(int(part)) if len(part) < 10 else part for part in text.split("."))
    if "%" in text:
        return None
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def address(text: str, field: str, known: Sequence[str] = ()) -> Causes:
    """Validate an address. Those in `known`, which were there before, are accepted."""
    if text not in known and parsed(text) is None:
        yield invalid(field, text, _ADDRESS)


def network(text: str, field: str, known: Sequence[str] = ()) -> Causes:
    """Validate a range of addresses."""
    if text not in known and not is_network(text):
        yield invalid(field, text, _NETWORK)


def is_network(text: str) -> bool:
    """Whether a text is a range of addresses."""
    base, slash, length = text.partition("/")
    found = parsed(base)
    if not slash or found is None or not re.fullmatch(r"[0-9]{1,4}", length):
        return False
    return int(length) <= found.max_prefixlen


def parsed_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return a range of addresses, without what is set beyond its prefix, or `None` for an invalid one.

    One of IPv4 that is written as IPv6 (`::ffff:10.0.0.0/104`) stays one of IPv6.
    """
    if not is_network(text):
        return None
    base, _, length = text.partition("/")
    return ipaddress.ip_network(f"{parsed(base)}/{int(length)}", strict=False)


def endpoint(text: str, field: str) -> Causes:
    """Validate an address that receives traffic."""
    found = parsed(text)
    if found is None:
        yield invalid(field, text, "must be a valid IP address")
        return
    if found.is_unspecified:
        yield invalid(field, text, f"may not be unspecified ({text})")
    if found.is_loopback:
        yield invalid(field, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
    if found.is_link_local:
        yield invalid(field, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    if any(found.version == group.version and found in group for group in _LINK_LOCAL_GROUPS):
        yield invalid(field, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")


def is_dual_stack(texts: Sequence[str]) -> bool:
    """Whether there are addresses, or ranges, of both families."""
    return len({found.version for text in texts if (found := parsed(text.partition("/")[0])) is not None}) > 1

"""Warnings about addresses and ranges in a non-standard form (apimachinery, `GetWarningsForIP`)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from cumulet.common.ascii import is_digits
from cumulet.kube.schema.validation.addresses import Address, parsed


def address(text: str, field: str) -> Iterator[str]:
    """Yield the warnings about a valid address."""
    found = parsed(text)
    if found is None:
        return
    plain = _plain(found)
    if not _is_standard(text) or plain != found:
        yield f'{field}: non-standard IP address "{text}" is invalid: use "{plain}"'
    elif found.version == 6 and str(found) != text:
        yield f'{field}: IPv6 address "{text}" should be in RFC 5952 canonical format ("{found}")'


def network(text: str, field: str) -> Iterator[str]:
    """Yield the warnings about a valid range."""
    base, _, length = text.partition("/")
    found = parsed(base)
    if found is None or not is_digits(length) or int(length) > found.max_prefixlen:
        return
    whole = ipaddress.ip_network(f"{found}/{int(length)}", strict=False)
    warned = False
    if whole.network_address != found:
        single = f"{found}/{found.max_prefixlen}"
        yield f'{field}: CIDR value "{text}" is ambiguous in this context (should be "{whole}" or "{single}"?)'
        warned = True
    if not _is_standard(base) or str(int(length)) != length or _plain(found) != found:
        yield f'{field}: non-standard CIDR value "{text}" is invalid: use "{whole}"'
    elif not warned and found.version == 6 and f"{found}/{length}" != text:
        yield f'{field}: IPv6 CIDR value "{text}" should be in RFC 5952 canonical format ("{found}/{length}")'


def _is_standard(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _plain(parsed: Address) -> Address:
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped if mapped is not None else parsed

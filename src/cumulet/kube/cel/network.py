"""The libraries of URLs, addresses and ranges of addresses (`cel/library/urls.go`, `ip.go`, `cidr.go`)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from cumulet.common.ascii import is_digits

_URL, _IP, _CIDR = "net.URL", "net.IP", "net.CIDR"
#: What stands before the functions that belong to no value: `ip.isCanonical(…)`.
IP_NAMESPACE = "k8s.io/ip"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Value = dict[str, Any]


def _address(text: str) -> Address:
    """Raises `ValueError`."""
    found = ipaddress.ip_address(text)
    if isinstance(found, ipaddress.IPv6Address) and (found.ipv4_mapped is not None or found.scope_id):
        raise ValueError(f"{text!r} is mapped from IPv4 or has a zone")
    return found


def _network(text: str, *, strict: bool = False) -> Network:
    """Raises `ValueError`."""
    host, slash, length = text.partition("/")
    _address(host)
    if not slash or not is_digits(length) or (length != "0" and length.startswith("0")):
        raise ValueError(f"{text!r} has no prefix length")
    return ipaddress.ip_network(text, strict=strict)


def _ip(value: Any) -> Value:
    if isinstance(value, dict):
        return {_IP: str(_address(value[_CIDR].partition("/")[0]))}
    return {_IP: str(_address(value))}


def _is(parse: Callable[[str], Any], text: Any) -> bool:
    try:
        parse(text)
    except (ValueError, TypeError, AttributeError):
        return False
    return True


def _of_ip(value: Value) -> Address:
    return ipaddress.ip_address(value[_IP])


def _of_cidr(value: Value) -> Network:
    return _network(value[_CIDR])


def _cidr(text: str) -> Value:
    _network(text)
    return {_CIDR: text}


def _contains_ip(cidr: Value, ip: Any) -> bool:
    return (_of_ip(ip) if isinstance(ip, dict) else _address(ip)) in _of_cidr(cidr)


def _contains_cidr(cidr: Value, other: Any) -> bool:
    inner, outer = _of_cidr(other if isinstance(other, dict) else {_CIDR: other}), _of_cidr(cidr)
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _masked(cidr: Value) -> Value:
    return {_CIDR: str(_of_cidr(cidr))}


def _is_global(value: Value) -> bool:
    found = _of_ip(value)
    return not (
        found.is_unspecified
        or found.is_loopback
        or found.is_multicast
        or found.is_link_local
        or str(found) == "255.255.255.255"
    )


def _is_link_local_multicast(value: Value) -> bool:
    found = _of_ip(value)
    return found in ipaddress.ip_network("224.0.0.0/24" if found.version == 4 else "ff02::/16")


def _url(text: str) -> Value:
    """Raises `ValueError` for what is neither an absolute URI nor an absolute path."""
    parts = urlsplit(text)
    if not text.startswith("/") and not parts.scheme:
        raise ValueError(f'URL parse error during conversion from string: parse "{text}": invalid URI for request')
    _ = parts.port  # which is a number or an error
    return {_URL: text}


def _host(value: Value) -> str:
    return urlsplit(value[_URL]).netloc.rpartition("@")[2]


def _hostname(value: Value) -> str:
    host = _host(value)
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _port(value: Value) -> str:
    number = urlsplit(value[_URL]).port
    return "" if number is None else str(number)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "ip": _ip,
    "isIP": lambda text: _is(_address, text),
    "isCanonical": lambda _, text: str(_address(text)) == text,
    "family": lambda value: _of_ip(value).version,
    "isUnspecified": lambda value: _of_ip(value).is_unspecified,
    "isLoopback": lambda value: _of_ip(value).is_loopback,
    "isLinkLocalMulticast": _is_link_local_multicast,
    "isLinkLocalUnicast": lambda value: _of_ip(value).is_link_local,
    "isGlobalUnicast": _is_global,
    "cidr": _cidr,
    "isCIDR": lambda text: _is(_network, text),
    "containsIP": _contains_ip,
    "containsCIDR": _contains_cidr,
    "prefixLength": lambda value: _of_cidr(value).prefixlen,
    "masked": _masked,
    "url": _url,
    "isURL": lambda text: _is(_url, text),
    "getScheme": lambda value: urlsplit(value[_URL]).scheme,
    "getHost": _host,
    "getHostname": _hostname,
    "getPort": _port,
    "getEscapedPath": lambda value: quote(urlsplit(value[_URL]).path, safe="/%:@!$&'()*+,;=~"),
    "getQuery": lambda value: parse_qs(urlsplit(value[_URL]).query, keep_blank_values=True),
}

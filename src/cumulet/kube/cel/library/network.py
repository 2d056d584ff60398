"""The libraries of URLs, IP addresses and CIDR ranges (`cel/library/urls.go`, `ip.go`, `cidr.go`)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

from cumulet.common.ascii import is_digits
from cumulet.kube.cel.errors import CelError
from cumulet.kube.cel.functions import Library
from cumulet.kube.cel.opaque import Opaque
from cumulet.kube.cel.sizes import TRAVERSAL, scaled, scan, scan_cost
from cumulet.kube.cel.values import Key, Value

LIBRARY = Library()
T = TypeVar("T")
_add = LIBRARY.add

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
#: The most characters of an address, with or without a prefix length.
_LENGTH = 64


@dataclass(frozen=True, slots=True)
class IP(Opaque):
    """An IP address."""

    kind: ClassVar[str] = "net.IP"
    address: Address


@dataclass(frozen=True, slots=True)
class CIDR(Opaque):
    """A range of addresses, as written."""

    kind: ClassVar[str] = "net.CIDR"
    address: Address
    length: int

    @property
    def network(self) -> Network:
        """The network that contains the range's addresses."""
        return ipaddress.ip_network(f"{self.address}/{self.length}", strict=False)


@dataclass(frozen=True, slots=True)
class URL(Opaque):
    """A URL."""

    kind: ClassVar[str] = "kubernetes.URL"
    text: str


def _address(text: str) -> Address:
    """Parse an IP address. Raises `ValueError`."""
    if len(text) > _LENGTH or not text.isascii():
        raise ValueError(f"unable to parse IP {text[:100]!r}")
    found = ipaddress.ip_address(text)
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            raise ValueError("IPv4-mapped IPv6 address is not allowed")
        if found.scope_id is not None:
            raise ValueError(f"IP address {text!r} with zone value is not allowed")
    return found


def _range(text: str) -> CIDR:
    """Parse a range. Raises `ValueError`."""
    host, slash, length = text.partition("/")
    address = _address(host)
    plain = is_digits(length) and (length == "0" or not length.startswith("0"))
    if not slash or not plain or len(length) > 3 or int(length) > address.max_prefixlen:
        raise ValueError(f"network address parse error during conversion from string: {text[:100]!r}")
    return CIDR(address, int(length))


def _parse_url(text: str) -> URL:
    """Parse an absolute URI or an absolute path. Raises `ValueError` for anything else."""
    parts = urlsplit(text)
    if (not text.startswith("/") and not parts.scheme) or any(char <= " " or char == "\x7f" for char in text):
        raise ValueError(
            f'URL parse error during conversion from string: parse "{text[:200]}": invalid URI for request'
        )
    _ = parts.port  # evaluated for its `ValueError`, where the port is not a number
    return URL(text)


def _or_error(parse: Callable[[str], T]) -> Callable[[str], T]:
    def parsed(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise CelError(str(error)) from None

    return parsed


def _is(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def test(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return test


def _contains_ip(cidr: CIDR, ip: IP | str) -> bool:
    return (ip.address if isinstance(ip, IP) else _or_error(_address)(ip)) in cidr.network


def _contains_cidr(cidr: CIDR, other: CIDR | str) -> bool:
    inner = other if isinstance(other, CIDR) else _or_error(_range)(other)
    one, two = inner.network, cidr.network
    return one.version == two.version and one.subnet_of(two)  # type: ignore[arg-type]


def _masked(cidr: CIDR) -> CIDR:
    return CIDR(cidr.network.network_address, cidr.length)


def _is_global(value: IP) -> bool:
    found = value.address
    return not (
        found.is_unspecified
        or found.is_loopback
        or found.is_multicast
        or found.is_link_local
        or str(found) == "255.255.255.255"
    )


def _is_link_local_multicast(value: IP) -> bool:
    found = value.address
    return found in ipaddress.ip_network("224.0.0.0/24" if found.version == 4 else "ff02::/16")


def _host(value: URL) -> str:
    return urlsplit(value.text).netloc.rpartition("@")[2]


def _hostname(value: URL) -> str:
    host = _host(value)
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _port(value: URL) -> str:
    number = urlsplit(value.text).port
    return "" if number is None else str(number)


def _within_cost(parses: bool) -> Callable[[CIDR, IP | CIDR | str], int]:
    def cost(cidr: CIDR, inner: IP | CIDR | str) -> int:
        return 5 + (scan_cost()(inner) if parses else 0)

    return cost


def _query(value: URL) -> dict[Key, Value]:
    found = parse_qs(urlsplit(value.text).query, keep_blank_values=True)
    return {key: [*values] for key, values in found.items()}


_IP, _CIDR, _URL = "net.IP", "net.CIDR", "kubernetes.URL"
_add(f"ip(string) {_IP}", lambda text: IP(_or_error(_address)(text)), scan_cost(), scan())
_add("isIP(string) bool", _is(_address), scan_cost(), scan())
_add("ip.isCanonical(string) bool", lambda text: str(_or_error(_address)(text)) == text, scan_cost(0.2), scan(0.2))
_add(f"({_IP}).family() int", lambda value: value.address.version)
_add(f"({_IP}).isUnspecified() bool", lambda value: value.address.is_unspecified)
_add(f"({_IP}).isLoopback() bool", lambda value: value.address.is_loopback)
_add(f"({_IP}).isLinkLocalMulticast() bool", _is_link_local_multicast)
_add(f"({_IP}).isLinkLocalUnicast() bool", lambda value: value.address.is_link_local)
_add(f"({_IP}).isGlobalUnicast() bool", _is_global)
_add(f"string({_IP}) string", lambda value: str(value.address))
_add(f"cidr(string) {_CIDR}", _or_error(_range), scan_cost(), scan())
_add("isCIDR(string) bool", _is(_range), scan_cost(), scan())
for _kind, _parses in ((_IP, False), ("string", True)):
    _add(
        f"({_CIDR}).containsIP({_kind}) bool",
        _contains_ip,
        _within_cost(_parses),
        lambda target, args: (
            4 + (scaled(args[0].size.most, TRAVERSAL) if args[0].type.kind == "string" else 0),
            None,
        ),
    )
for _kind, _parses in ((_CIDR, False), ("string", True)):
    _add(
        f"({_CIDR}).containsCIDR({_kind}) bool",
        _contains_cidr,
        _within_cost(_parses),
        lambda target, args: (
            7 + (scaled(args[0].size.most, TRAVERSAL) if args[0].type.kind == "string" else 0),
            None,
        ),
    )
_add(f"({_CIDR}).ip() {_IP}", lambda value: IP(value.address))
_add(f"({_CIDR}).prefixLength() int", lambda value: value.length)
_add(f"({_CIDR}).masked() {_CIDR}", _masked)
_add(f"string({_CIDR}) string", lambda value: f"{value.address}/{value.length}")
_add(f"url(string) {_URL}", _or_error(_parse_url), scan_cost(), scan())
_add("isURL(string) bool", _is(_parse_url), scan_cost(), scan())
_add(f"({_URL}).getScheme() string", lambda value: urlsplit(value.text).scheme)
_add(f"({_URL}).getHost() string", _host)
_add(f"({_URL}).getHostname() string", _hostname)
_add(f"({_URL}).getPort() string", _port)
_add(
    f"({_URL}).getEscapedPath() string",
    lambda value: quote(urlsplit(value.text).path, safe="/%:@!$&'()*+,;=~"),
    scan_cost(),
    1,
)
_add(
    f"({_URL}).getQuery() map<string, list<string>>",
    _query,
)

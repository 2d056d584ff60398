"""Connections to addresses that users choose: some are refused, by a check of the IP address of each connection.

A user can name a registry, a webhook or an API server. The name may resolve to this machine, to a cloud's metadata
service or to another tenant's pod, and to another address the next time. The check is part of creating the socket, so it
covers IP literals, redirects and every resolution of a name. It precedes the connection, so a refused address gives the
same error whether or not a server listens there.

Refused by default, after an IPv6 address that carries an IPv4 address is reduced to it:

- this machine: loopback, the unspecified address, and every address that the kernel delivers locally;
- link-local, multicast, broadcast and reserved addresses;
- metadata services of clouds at other addresses;
- the installation's ranges of pods, Services and external addresses.

Other private addresses (RFC 1918, RFC 4193) are allowed, because on-premises registries have them.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
import ssl
from collections.abc import Iterable, Mapping

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from aiohttp.abc import AbstractResolver

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Special-purpose addresses (RFC 6890) where no service can be, and metadata services that are not link-local: Azure's
#: platform address, Alibaba Cloud's and AWS's.
_NEVER = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/127",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
        "64:ff9b:1::/48",
        "168.63.129.16/32",
        "100.100.100.200/32",
        "fd00:ec2::254/128",
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
#: The unspecified and the loopback address, which are in the range of IPv4-compatible addresses.
_NOBODY = ipaddress.IPv6Network("::/127")
_WITH_PORT = re.compile(r"(?P<address>[0-9.]+|\[[0-9a-fA-F:.]+\])(?::(?P<port>[0-9]{1,5}))?")
_UNPACKED: Mapping[str, str] = {"Accept-Encoding": "identity"}
#: An arbitrary port: the kernel only selects a route.
_DISCARD = 9


class RefusedAddressError(OSError):
    """A connection to this address is refused. The message has no address, because the user who named the host sees it."""

    def __init__(self) -> None:
        super().__init__(
            errno.EACCES,
            "the address is not allowed: it is of this machine, of the cluster, link-local or reserved"
            " (`cumulet up --allow-egress` sets exceptions)",
        )


class Exempt:
    """An exception, written `CIDR`, `ADDRESS` or `ADDRESS:PORT` (an IPv6 address with a port in brackets).

    Host names are not accepted, because others control their resolution. Raises `ValueError`.
    """

    def __init__(self, text: str) -> None:
        self.port: int | None = None
        try:
            if "/" in text:
                self.network: IpNetwork = ipaddress.ip_network(text)
            else:
                match = _WITH_PORT.fullmatch(text)
                if match is not None and match["port"] is not None:
                    self.port = int(match["port"])
                    if not 0 < self.port < 65536:
                        raise ValueError("the port is not between 1 and 65535")
                    text = match["address"].strip("[]")
                self.network = ipaddress.ip_network(ipaddress.ip_address(text))
        except ValueError as error:
            raise ValueError(f"{text[:100]!r} is not CIDR, ADDRESS or ADDRESS:PORT: {error}") from None

    @classmethod
    def of(cls, address: str, port: int) -> Exempt:
        """Return the exception for one port of an address. Raises `ValueError`."""
        return cls(f"[{address}]:{port}" if ":" in address else f"{address}:{port}")

    def __str__(self) -> str:
        if self.port is None:
            return str(self.network)
        address = self.network.network_address
        return f"[{address}]:{self.port}" if address.version == 6 else f"{address}:{self.port}"

    def __repr__(self) -> str:
        return f"Exempt({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Exempt) and (self.network, self.port) == (other.network, other.port)

    def __hash__(self) -> int:
        return hash((self.network, self.port))

    def covers(self, address: IpAddress, port: int) -> bool:
        """Return whether the exception covers a connection."""
        return address in self.network and self.port in (None, port)


class Egress:
    """The check of addresses: refuses the ranges above and the ranges in `refused` (CIDR), except `exempt`."""

    def __init__(self, refused: Iterable[str] = (), exempt: Iterable[Exempt] = ()) -> None:
        self._refused = (*_NEVER, *(ipaddress.ip_network(text) for text in refused))
        self._exempt = tuple(exempt)

    def check(self, address: str, port: int) -> None:
        """Raises `RefusedAddressError` if the address is refused or is not an IP address."""
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            raise RefusedAddressError from None
        for each in _carried(parsed):
            if any(exempt.covers(each, port) for exempt in self._exempt):
                continue
            if any(each in network for network in self._refused) or _is_local(each):
                raise RefusedAddressError

    def socket(self, info: tuple[int, int, int, str, tuple[str | int, ...]]) -> socket.socket:
        """Return a socket for an address (`socket_factory` of `aiohttp.TCPConnector`). Raises `RefusedAddressError`."""
        family, kind, protocol, _, address = info
        self.check(str(address[0]), int(address[1]))
        return socket.socket(family, kind, protocol)

    def session(
        self,
        trusted: ssl.SSLContext | bool = True,
        *,
        resolver: AbstractResolver | None = None,
        timeout: aiohttp.ClientTimeout | None = None,
        headers: Mapping[str, str] = _UNPACKED,
    ) -> aiohttp.ClientSession:
        """Return a session that checks each of its connections.

        It has no state between requests: no cookies, and no proxies or credentials from the environment. It does not
        decompress bodies, which could grow a thousandfold; the default `headers` request uncompressed ones.
        """
        connector = aiohttp.TCPConnector(ssl=trusted, resolver=resolver, limit=0, socket_factory=self.socket)
        return aiohttp.ClientSession(
            connector=connector,
            timeout=timeout or aiohttp.ClientTimeout(total=300, sock_connect=10),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            headers=headers,
        )


async def https_only(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """Refuse a request or a redirect without TLS (a client middleware). Raises `aiohttp.InvalidURL`."""
    if request.url.scheme != "https":
        raise aiohttp.InvalidURL(request.url, "only https is allowed")
    return await handler(request)


def _carried(address: IpAddress) -> list[IpAddress]:
    """Return the addresses that an address reaches: IPv6 can carry IPv4 addresses (RFC 4291, 3056, 4380, 6052)."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address in _NAT64 or (address in _COMPATIBLE and address not in _NOBODY):
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    tunnelled = [address.sixtofour, *(address.teredo or ())]
    return [address, *(item for item in tunnelled if item is not None)]


def _is_local(address: IpAddress) -> bool:
    """Return whether the kernel delivers packets to an address on this machine.

    If so, the kernel selects the address itself as the source. No packet is sent.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), _DISCARD))
            source = probe.getsockname()[0]
    except OSError as error:
        # EACCES is a broadcast address. Without a route, the connection itself fails later.
        return error.errno == errno.EACCES
    return ipaddress.ip_address(str(source)) == address

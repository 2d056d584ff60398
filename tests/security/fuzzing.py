"""Requests that nobody means: a seeded stream of them, over connections that are kept, and what comes back.

Each begins as a request that a room understands and is changed in a few places: in its method, the spelling of its
path, its query, its headers, its body. A seed makes the same stream again.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from cumulet.common.config import Address

_METHODS = (
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "PROPFIND",
    "get",
    "A" * 40,
    "M-SEARCH",
)
#: What looks like an ASCII letter, folds to one, or is none.
_ALIKE = {
    "s": "\N{LATIN SMALL LETTER LONG S}",
    "S": "\N{LATIN SMALL LETTER LONG S}",
    "i": "\N{LATIN SMALL LETTER DOTLESS I}",
    "I": "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}",
    "k": "\N{KELVIN SIGN}",
    "K": "\N{KELVIN SIGN}",
    "a": "\N{CYRILLIC SMALL LETTER A}",
    "o": "\N{CYRILLIC SMALL LETTER O}",
    "1": "\N{FULLWIDTH DIGIT ONE}",
    "0": "\N{ARABIC-INDIC DIGIT ZERO}",
    "/": "\N{FULLWIDTH SOLIDUS}",
    ".": "\N{FULLWIDTH FULL STOP}",
}
_SEGMENTS = (
    "", ".", "..", "%2e%2e", "%2E", "%2f", "%2F..%2F", "%5c", "%00", "%0d%0a", "%0d%0aX-Injected:%201", "%09", "%20", "%7f", "%80", "%ff",
    "%c3%28", "%C0%AF", "%ed%a0%80", "%f0%9f%92%a9", "%E2%80%AE", "%EF%BB%BF", "%25", "%252e%252e", "%", "%zz", "*", "{x}", "a:b", "a;b", "a@b",
    "a&b", "a=b", "a,b", "(a)", "'", '%22', "<x>", "~", "$filter", "null", "-1", "0", "9" * 30, "x" * 300, "providers", "subscriptions",
    "_catalog", "..;", "con", "sha256:", "sha256:" + "g" * 64,
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, -(2**63), 10**30, 1.5, -0.0, 1e308, "", " ", "x", "\0", "a\r\nX-Injected: 1", "\u202e", "\ud7ff",
    "\U0001f4a9", "\u017f", "'", '"', "../../etc/passwd", "/etc/passwd", "http://127.0.0.1:1/", "x" * 10_000, [], [None], ["x"] * 500, [[[[]]]], {},
    {"": None}, {"x": {"x": {"x": {}}}}, {f"k{number}": "v" for number in range(200)}, "true", "1", "2026-13-45T00:00:00Z", "P1Y", "*",
)  # fmt: skip
_RAW = (
    b"", b"{", b"[]", b"null", b"1e999", b"\xff\xfe", b"\xef\xbb\xbf{}", b"[" * 20_000, b'{"a":' * 20_000, b'{"location":"eastus","location":5}',
    b'"' + b"\\ud800" * 100 + b'"', b"NaN", b"{'a':1}", b"<xml/>", b"\x00" * 1000, b"\x1f\x8b\x08\x00" + b"\0" * 50, b"9" * 5000, b"-" * 10,
)  # fmt: skip
_TYPES = (
    "application/json", "application/json; charset=utf-16", "text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded",
    "application/octet-stream", "application/vnd.oci.image.manifest.v1+json", "x", "", "application/json; charset=nothing", "a/b" * 100,
)  # fmt: skip
_HEADERS: tuple[tuple[str, str], ...] = (
    ("Authorization", ""), ("Authorization", "Bearer"), ("Authorization", "Bearer "), ("Authorization", "Bearer x"), ("Authorization", "Bearer a.b.c"),
    ("Authorization", "BEARER \xa0x"), ("Authorization", "Basic"), ("Authorization", "Basic !!!"), ("Authorization", "Basic Og=="),
    ("Authorization", "Basic " + "QQ" * 2000), ("Authorization", "Digest x"), ("Authorization", "\xff\xfe"), ("Authorization", "Bearer " + "x" * 5000),
    ("Authorization", "Bearer eyJhbGciOiJub25lIn0.e30."), ("Accept", "*/*;q=x"), ("Accept", ",,,;;;"), ("Accept-Encoding", "gzip;q=9"),
    ("Range", "bytes=0-"), ("Range", "bytes=-0"), ("Range", "bytes=9-1"), ("Range", "bytes=" + "0-1," * 200), ("Range", "x"), ("Content-Range", "0-"),
    ("Content-Range", "9999999999999999999-1"), ("Content-Range", "bytes \xb2-\xb3/*"), ("If-None-Match", '"x'), ("If-None-Match", "*"), ("If-Match", "*"),
    ("If-Modified-Since", "never"), ("Expect", "x"), ("Content-Encoding", "gzip"), ("Content-Encoding", "br"), ("Cookie", "a=b;" * 100),
    ("Referer", "https://evil.example/x"), ("Referer", "\xff"), ("Origin", "null"), ("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-Host", "evil.example"),
    ("X-HTTP-Method-Override", "DELETE"), ("X-Original-URL", "/metrics"), ("X-Rewrite-URL", "/metrics"), ("x-ms-client-object-id", "x"),
    ("x-ms-client-app-id", "x"), ("x-ms-correlation-request-id", "x" * 500), ("x-ms-correlation-request-id", "\xff"), ("client-request-id", "\xff"),
    ("Upgrade", "websocket"), ("Upgrade", "h2c"), ("Connection", "upgrade"), ("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters"),
    ("Impersonate-User", "x"), ("User-Agent", "\xff" * 50), ("Accept-Language", "x" * 4000), ("Via", "1.0 x"), ("Max-Forwards", "0"),
)  # fmt: skip
_QUERIES = (
    "", "api-version=2023-07-01", "api-version=", "api-version=\u017f", "$filter=x", "$filter=principalId%20eq%20'x'", "$filter=" + "(" * 500, "$top=x", "$top=0",
    "$top=99999999999999999999", "$top=%D9%A1", "$skiptoken=x", "$skiptoken=-1", "n=%C2%B2", "n=-1", "n=99999999999", "last=%00", "last=%ff", "watch=true&since=x",
    "stream=true&follow=true", "scope=repository:x:pull", "scope=" + "a" * 2000, "service=x&scope=%00", "digest=sha256:x", "mount=x&from=y", "tag=%00",
    "tail=-1", "since=%D9%A1", "orderby=x", "a=b&a=c", "&&&===", "%00=%00", "%ff=%ff", "x=" + "y" * 3000, "_method=DELETE", "access_token=x", "force=\u0130",
    "gracePeriodSeconds=99999999999999999999", "$select=a,b,,,", "$filter=atScope()", "$filter=assignedTo('" + "x" * 500 + "')",
)  # fmt: skip


class Request(NamedTuple):
    """One request as it goes over the wire; `target` is percent-encoded."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def path(self) -> str:
        """The path with its encoding taken off."""
        return unquote(self.target.partition("?")[0], errors="replace")

    def __str__(self) -> str:
        return f"{self.method} {self.target[:300]} {self.headers} {self.body[:200]!r}"


class Reply(NamedTuple):
    """What came back; status 0 where the connection was ended without an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Stream:
    """Makes requests from those of a room: `paths` by method, `bodies` that are understood, `headers` that go with all."""

    def __init__(
        self,
        seed: int,
        paths: Sequence[tuple[str, str]],
        bodies: Sequence[Any] = ({},),
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._random = random.Random(seed)
        self._paths = paths
        self._bodies = bodies
        self._headers = tuple(headers)

    def take(self, count: int) -> Iterator[Request]:
        """So many."""
        for _ in range(count):
            yield self._make()

    def _make(self) -> Request:
        chance = self._random.random
        method, path = self._random.choice(self._paths)
        for _ in range(self._random.choice((0, 1, 1, 1, 2, 3))):
            path = self._random.choice(_CHANGES)(self._random, path)
        if chance() < 0.1:
            method = self._random.choice(_METHODS)
        if chance() < 0.4:
            query = quote(self._random.choice(_QUERIES), safe="%=&$'(),:;*!-._~+/")
            path += ("&" if "?" in path else "?") + query
        headers = list(self._headers)
        for _ in range(self._random.choice((0, 0, 0, 1, 2))):
            name, value = self._random.choice(_HEADERS)
            if not any(known == name for known, _ in headers):
                headers.append((name, value))
        body = b""
        if method in ("POST", "PUT", "PATCH") or chance() < 0.05:
            body = self._body()
            if not any(name == "Content-Type" for name, _ in headers):
                headers.append(("Content-Type", self._random.choice(_TYPES) if chance() < 0.2 else _TYPES[0]))
        return Request(method, path, tuple(headers), body)

    def _body(self) -> bytes:
        if self._random.random() < 0.2:
            return self._random.choice(_RAW)
        body: Any = json.loads(json.dumps(self._random.choice(self._bodies)))
        for _ in range(self._random.choice((0, 1, 1, 2, 4))):
            body = _changed(self._random, body)
        return json.dumps(body).encode(errors="surrogatepass")


def _changed(random_: random.Random, value: Any) -> Any:
    """A document with one place of it another."""
    if isinstance(value, dict) and value and random_.random() < 0.85:
        key = random_.choice(sorted(value))
        choice = random_.random()
        if choice < 0.1:
            return {name: each for name, each in value.items() if name != key}
        if choice < 0.2:
            return {
                **value,
                random_.choice(("x", "\0", "id", "__proto__", "properties", key.upper())): random_.choice(_VALUES),
            }
        return {**value, key: _changed(random_, value[key])}
    if isinstance(value, list) and value and random_.random() < 0.7:
        at = random_.randrange(len(value))
        return [*value[:at], _changed(random_, value[at]), *value[at + 1 :]]
    return random_.choice(_VALUES)


def _alike(random_: random.Random, path: str) -> str:
    places = [at for at, char in enumerate(path) if char in _ALIKE]
    if not places:
        return path
    at = random_.choice(places)
    return f"{path[:at]}{quote(_ALIKE[path[at]])}{path[at + 1 :]}"


def _encoded(random_: random.Random, path: str) -> str:
    at = random_.randrange(1, max(len(path), 2))
    return f"{path[:at]}{''.join(f'%{byte:02x}' for byte in path[at : at + 1].encode())}{path[at + 1 :]}"


def _segment(random_: random.Random, path: str) -> str:
    parts = path.split("/")
    at = random_.randrange(1, len(parts)) if len(parts) > 1 else 0
    choice = random_.random()
    if choice < 0.4:
        parts[at] = random_.choice(_SEGMENTS)
    elif choice < 0.7:
        parts.insert(at, random_.choice(_SEGMENTS))
    elif choice < 0.85:
        del parts[at]
    else:
        parts.append(random_.choice(_SEGMENTS))
    return "/" + "/".join(parts).lstrip("/") if random_.random() < 0.9 else "/".join(parts)


def _cased(random_: random.Random, path: str) -> str:
    return random_.choice((str.upper, str.lower, str.swapcase))(path) if "%" not in path else path


def _slashed(random_: random.Random, path: str) -> str:
    return random_.choice(
        (path.replace("/", "//"), f"/{path}", f"{path}/", f"{path}//", path.replace("/", "/./"), f"/x/..{path}")
    )


_CHANGES: tuple[Callable[[random.Random, str], str], ...] = (_alike, _encoded, _segment, _segment, _cased, _slashed)


class Wire:
    """One connection after another to a server, each kept for as long as it takes requests."""

    def __init__(self, address: Address, context: ssl.SSLContext) -> None:
        self._address = address
        self._context = context
        self._socket: ssl.SSLSocket | None = None

    def send(self, request: Request) -> Reply:
        """The answer to a request. A request that is refused before it is one ends the connection."""
        lines = [
            f"{request.method} {request.target or '/'} HTTP/1.1",
            f"Host: {self._address.host}:{self._address.port}",
        ]
        lines += [f"{name}: {value}" for name, value in request.headers]
        lines.append(f"Content-Length: {len(request.body)}")
        head = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"
        for fresh in (False, True):
            connection = self._connect(fresh=fresh)
            try:
                connection.sendall(head + request.body)
                response = http.client.HTTPResponse(connection, method=request.method)
                response.begin()
                body = response.read()
            except (ConnectionError, ssl.SSLError, http.client.HTTPException, TimeoutError):
                self.close()
                continue
            if response.will_close or response.status == 101:
                self.close()
            return Reply(response.status, response.headers, body)  # type: ignore[arg-type]
        return Reply(0, {}, b"")

    def _connect(self, *, fresh: bool) -> ssl.SSLSocket:
        if self._socket is None or fresh:
            self.close()
            plain = socket.create_connection((self._address.host, self._address.port), timeout=30)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = self._context.wrap_socket(plain, server_hostname=self._address.host)
        return self._socket

    def close(self) -> None:
        """End the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def check(reply: Reply, request: Request) -> str | None:
    """What is wrong with any answer, whoever asked: a failure of ours, or a header that the request made."""
    if reply.status >= 500 and reply.status != 501:
        return f"{reply.status} {reply.body[:200]!r} to {request}"
    if reply.status and any(name.lower() == "x-injected" for name in dict(reply.headers)):
        return f"a header was injected by {request}"
    return None

"""Some thousand requests of every kind of nonsense: the API server answers each as a server should, and lets nobody in."""

from __future__ import annotations

import http.client
import json
import random
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from cumulet.kube.catalog.resources import RESOURCES, Row
from tests.kube.conftest import Server, cloud, server

__all__ = ["cloud", "server"]

_REQUESTS = 2000
_SEED = 20260721
#: What a request may be answered without any credential.
_OPEN = ("/healthz", "/livez", "/readyz", "/version", "/.well-known/openid-configuration", "/openid/v1/jwks")
_TEXTS = (
    "",
    "a",
    "default",
    "kube-system",
    "..",
    ".",
    "../../etc/passwd",
    "%2e%2e",
    "a/b",
    "ſ",
    "K",
    "ı",
    "ﬀ",
    "１２３",
    "٣",
    "e\u0301",
    "\u202e",
    "\ufeff",
    "😀",
    "\x00",
    "\r\nX: y",
    "a" * 300,
    "a" * 5000,
    "-a",
    "a-",
    "A",
    "a_b",
    "a b",
    "null",
    "true",
    "0",
    "-1",
    "1e309",
    "NaN",
    "{}",
    "[]",
    "$patch",
    "__proto__",
)
_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    2**64,
    -(2**63) - 1,
    1e308,
    -0.0,
    0.1,
    [],
    {},
    [[]],
    [{}],
    [None],
    {"": None},
    {"a": {"a": {"a": 1}}},
)
_MEDIA = (
    "application/json",
    "application/json; charset=utf-8",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/json-patch+json",
    "application/apply-patch+yaml",
    "application/cbor",
    "text/plain",
    "",
    "APPLICATION/JSON",
    "application/json;as=Table",
    "multipart/form-data; boundary=x",
)
_ACCEPT = (
    "*/*",
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/json;as=\xc5\xbf",
    "text/html",
    ";;;",
)
_QUERIES = (
    "dryRun",
    "fieldManager",
    "fieldValidation",
    "force",
    "labelSelector",
    "fieldSelector",
    "limit",
    "continue",
    "resourceVersion",
    "resourceVersionMatch",
    "timeoutSeconds",
    "gracePeriodSeconds",
    "propagationPolicy",
    "orphanDependents",
    "pretty",
    "container",
    "command",
    "tailLines",
    "sinceTime",
    "ports",
    "path",
)
_FIELDS = (
    "metadata",
    "spec",
    "status",
    "data",
    "name",
    "namespace",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "managedFields",
    "generateName",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "containers",
    "template",
    "selector",
    "ports",
    "port",
    "rules",
    "subjects",
    "roleRef",
    "versions",
    "validations",
    "expression",
    "kind",
    "apiVersion",
    "replicas",
    "resources",
    "limits",
    "type",
)


class Fuzzer:
    """Makes requests, always the same ones."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._rows = [row for row in RESOURCES if not row.is_remote]

    def _one(self, items: Any) -> Any:
        return self._random.choice(items)

    def _chance(self, part: float) -> bool:
        return self._random.random() < part

    def _value(self, depth: int = 0) -> Any:
        kind = self._random.random()
        if depth < 4 and kind < 0.45:
            return {
                self._one(_FIELDS if self._chance(0.8) else _TEXTS): self._value(depth + 1)
                for _ in range(self._random.randrange(5))
            }
        if depth < 4 and kind < 0.6:
            return [self._value(depth + 1) for _ in range(self._random.randrange(4))]
        return self._one(_TEXTS) if kind < 0.8 else self._one(_VALUES)

    def path(self) -> str:
        """A path: of a resource that there is, mostly."""
        if self._chance(0.05):
            return "/" + "/".join(quote(self._one(_TEXTS), safe="") for _ in range(self._random.randrange(6)))
        row: Row = self._one(self._rows)
        start = f"/apis/{row.group}/{row.version}" if row.group else f"/api/{row.version}"
        if row.namespaced and self._chance(0.8):
            start += f"/namespaces/{self._name()}"
        start += f"/{row.plural}"
        if self._chance(0.6):
            start += f"/{self._name()}"
            if self._chance(0.4):
                subresources = [*row.subresources, "status", "scale", "proxy", "exec", "log", "ſtatus"]
                start += f"/{quote(self._one(subresources))}"
        return start

    def _name(self) -> str:
        return quote(self._one(_TEXTS), safe="") if self._chance(0.5) else "default"

    def query(self) -> str:
        """Parameters, now and then."""
        if self._chance(0.6):
            return ""
        pairs = [
            f"{self._one(_QUERIES)}={quote(str(self._one(_TEXTS + _VALUES)), safe='')}"
            for _ in range(self._random.randrange(1, 4))
        ]
        return "?" + "&".join(pairs)

    def body(self) -> bytes | None:
        """JSON of any form, or bytes that are none."""
        kind = self._random.random()
        if kind < 0.15:
            return None
        if kind < 0.25:
            return self._random.randbytes(self._random.randrange(200))
        text = json.dumps(self._value(), ensure_ascii=self._chance(0.5)).encode(errors="surrogatepass")
        if kind < 0.35 and text:
            at = self._random.randrange(len(text))
            text = text[:at] + self._random.randbytes(1) + text[at + 1 :]
        return text if kind < 0.95 else b"k8s\x00" + text

    def headers(self) -> dict[str, str]:
        """Media types, and headers that mean something."""
        found = {"Content-Type": self._one(_MEDIA), "Accept": self._one(_ACCEPT)}
        if self._chance(0.05):
            found["Content-Encoding"] = self._one(("gzip", "deflate", "br", "identity"))
        if self._chance(0.05):
            found["Impersonate-Group"] = "system:masters"
        if self._chance(0.03):
            found["Upgrade"] = self._one(("websocket", "SPDY/3.1", "h2c"))
            found["Connection"] = "Upgrade"
        if self._chance(0.03):
            found["X-Remote-User"] = "admin"
        return found

    def method(self) -> str:
        """Mostly those that there are."""
        return str(self._one(("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "FOO", "get")))


class Connection:
    """One connection, opened anew where the server has closed it."""

    def __init__(self, server: Server, context: ssl.SSLContext) -> None:
        self._address = server.cloud.config.addresses["kube"]
        self._context = context
        self._open()

    def _open(self) -> None:
        address = self._address
        self._connection = http.client.HTTPSConnection(address.host, address.port, context=self._context, timeout=30)

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    def call(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        """Status and body of an answer."""
        for last in (False, True):
            try:
                self._connection.request(method, path, body, headers)
                response = self._connection.getresponse()
                found = response.status, response.read()
                if "Upgrade" in headers:  # what follows may be taken for the other protocol
                    self.close()
                return found
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                self.close()
                self._open()
                if last:
                    raise
        raise AssertionError


@pytest.fixture
def known(server: Server) -> Iterator[Connection]:
    """A connection of the administrator."""
    made = Connection(server, server.tls)
    yield made
    made.close()


@pytest.fixture
def unknown(server: Server) -> Iterator[Connection]:
    """A connection of nobody."""
    context = ssl.create_default_context(cafile=str(server.cloud.config.ca_file))
    made = Connection(server, context)
    yield made
    made.close()


def is_foreseen(status: int, body: bytes) -> bool:
    """No failure of the server's own: 503 and 504 are the protocol's, and so is a 500 without a reason, for some patches."""
    if status < 500 or status in (501, 503, 504):
        return True
    try:
        said = json.loads(body)
    except ValueError:
        return False
    return status == 500 and said.get("kind") == "Status" and "reason" not in said


def test_nothing_unforeseen_happens(server: Server, known: Connection) -> None:
    fuzzer = Fuzzer(_SEED)
    for number in range(_REQUESTS):
        method, path = fuzzer.method(), fuzzer.path() + fuzzer.query()
        body, headers = fuzzer.body(), fuzzer.headers()
        if method == "DELETE" and "dryRun" not in path:  # what the next requests need stays
            path += f"{'&' if '?' in path else '?'}dryRun=All"
        status, said = known.call(method, path, body, headers)
        assert is_foreseen(status, said), (number, method, path, body, headers, status, said[:500])
    assert server.call("GET", "/readyz").status == 200


def test_nobody_gets_in(unknown: Connection) -> None:
    fuzzer = Fuzzer(_SEED + 1)
    for number in range(_REQUESTS // 2):
        method, path = fuzzer.method(), fuzzer.path() + fuzzer.query()
        headers = fuzzer.headers()
        status, said = unknown.call(method, path, fuzzer.body(), headers)
        is_open = path.partition("?")[0] in _OPEN
        assert is_foreseen(status, said), (number, method, path, headers, status, said[:500])
        assert status >= 400 or is_open, (number, method, path, headers, status, said[:500])


def test_tokens_that_are_none(server: Server, unknown: Connection) -> None:
    fuzzer = Fuzzer(_SEED + 2)
    for text in (*_TEXTS, "a.b.c", "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2t1YmVybmV0ZXMuZGVmYXVsdC5zdmMifQ."):
        if any(char in text for char in "\r\n\x00"):
            continue
        value = text.encode().decode("latin-1")
        for scheme in ("Bearer", "bearer", "BEARER"):
            status, said = unknown.call("GET", fuzzer.path(), None, {"Authorization": f"{scheme} {value}"})
            assert 400 <= status < 500, (text, status, said[:200])
    assert server.call("GET", "/readyz").status == 200

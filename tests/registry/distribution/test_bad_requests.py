"""Invalid requests: names, digests and headers outside their grammar, interrupted bodies, raw bytes.

The response is always a 4xx in the OCI's form, and nothing is stored in part.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.registry.client import IMAGE, INDEX, Registry, digest_of, image, noise

GOOD = digest_of(b"good")


@pytest.fixture(scope="module", autouse=True)
def prepared(registry: Registry) -> None:
    """Content that some requests would reach if they were valid."""
    registry.push_image("good", "v1", seed="good")
    for name in ("good", "fuzzed"):
        registry.push_blob(name, b"good")


@pytest.fixture(autouse=True)
def nothing_broke(registry: Registry) -> Iterator[None]:
    """Check after each test that the registry had no internal error and still serves."""
    yield
    errors = [line for line in registry.cloud.log("registry").splitlines() if '"level":"error"' in line]
    assert [
        line for line in errors if '"logger":"aiohttp.server"' not in line
    ] == []  # the responses to bytes that are not HTTP
    assert registry.call("GET", "/v2/").status == 200


def raw(registry: Registry, *pieces: bytes, end: bool = True) -> bytes:
    """Send raw bytes and read the response. With `end`, close this side of the connection first."""
    with registry.open() as connection:
        for piece in pieces:
            connection.sendall(piece)
        if end:
            connection.unwrap().close()
            return b""
        answer = b""
        try:
            while not _is_whole(answer) and (piece := connection.recv(65536)):
                answer += piece
        except (ConnectionResetError, ssl.SSLError):
            pass
        return answer


def _is_whole(answer: bytes) -> bool:
    start, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", start.lower())
    return length is not None and len(body) >= int(length[1])


def head(registry: Registry, line: str, **headers: str) -> bytes:
    """The head of a request, as raw bytes."""
    sent = {"Host": registry.host, **registry.authorization, "Connection": "close"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return "\r\n".join([line, *(f"{name}: {value}" for name, value in sent.items()), "", ""]).encode("latin-1")


def status(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/"), answer[:100]
    return int(answer.split(b" ", 2)[1])


# Names.

BAD_NAMES = [
    "UPPER",
    "a..b",
    "a/../b",
    "../etc/passwd",
    "..",
    ".",
    "/etc/passwd",
    "a//b",
    "a/",
    "-a",
    "a-",
    "a.-b",
    "a___b",
    "a b",
    "a\x00b",
    "a\nb",
    "ä",
    "a%2e%2e",
    "a" * 256,
    "/".join(["a"] * 200),
    "a:b",
    "a@b",
    "a\\b",
    "a;b",
    "<a>",
    "\U0001f600",
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: repr(name[:20]))
def test_invalid_names(registry: Registry, name: str) -> None:
    encoded = quote(name, safe="")
    for method, path in (
        ("GET", f"/v2/{encoded}/tags/list"),
        ("GET", f"/v2/{encoded}/manifests/v1"),
        ("PUT", f"/v2/{encoded}/manifests/v1"),
        ("POST", f"/v2/{encoded}/blobs/uploads/"),
        ("POST", f"/v2/good/blobs/uploads/?mount={GOOD}&from={encoded}"),
        ("DELETE", f"/v2/{encoded}/manifests/{GOOD}"),
    ):
        answer = registry.call(method, path, b"")
        assert (answer.status, answer.code) in ((400, "NAME_INVALID"), (404, "NAME_INVALID")), path


@pytest.mark.parametrize("path", ["/v2/{0}/tags/list", "/v2/good/manifests/{0}", "/v2/good/blobs/{0}", "/v2/{0}"])
@pytest.mark.parametrize(
    "piece",
    ["%00", "%2500", "%252e%252e", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%", "%zz", "%ff", "%c0%ae%c0%ae", "~root"],
)
def test_paths_are_percent_decoded_once(registry: Registry, path: str, piece: str) -> None:
    answer = registry.call("GET", path.format(piece))
    assert answer.status in (400, 404)
    assert answer.code in ("NAME_INVALID", "TAG_INVALID", "DIGEST_INVALID")


def test_a_digest_and_a_name_may_be_percent_encoded(registry: Registry, repository: str) -> None:
    digest = registry.push_blob(repository, b"encoded")
    assert registry.call("GET", f"/v2/{quote(repository, safe='')}/blobs/{quote(digest)}").body == b"encoded"


@pytest.mark.parametrize(
    "tag",
    [".a", "-a", "a" * 129, "a b", "a/b", "ä", "a\x00", "a+b", "", "@", "latest\n"],
    ids=lambda tag: repr(tag[:10]),
)
def test_invalid_tags(registry: Registry, repository: str, tag: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = registry.call(method, f"/v2/{repository}/manifests/{quote(tag, safe='')}", b"")
        assert answer.status in (400, 404)
        assert answer.code in ("TAG_INVALID", "NAME_INVALID")


@given(
    name=st.text(min_size=1, max_size=30),
    kind=st.sampled_from(["manifests", "blobs", "referrers", "tags", "blobs/uploads", "x"]),
    reference=st.one_of(st.text(max_size=30), st.from_regex(r"sha(256|512):[0-9a-f]{60,70}", fullmatch=True)),
    method=st.sampled_from(["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"]),
    encode=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_any_path(registry: Registry, name: str, kind: str, reference: str, method: str, encode: bool) -> None:
    safe = "" if encode else "/%:;=@!$&'()*+,"
    try:
        path = f"/v2/{quote(name, safe=safe)}/{kind}/{quote(reference, safe=safe)}"
    except UnicodeEncodeError:
        path = f"/v2/{quote(name.encode('utf-8', 'surrogatepass'))}/{kind}/x"
    answer = registry.call(method, path, b"")
    # A path that matches the grammar by chance is served: an upload starts, an empty list is listed.
    assert answer.status < 500
    if answer.status >= 400 and method != "HEAD":
        assert answer.code


@given(
    query=st.dictionaries(
        st.sampled_from(["n", "last", "digest", "mount", "from", "tag", "artifactType", "digest-algorithm", "scope"]),
        st.text(max_size=20),
        max_size=4,
    ),
    path=st.sampled_from(
        [
            ("GET", "/v2/good/tags/list"),
            ("GET", "/v2/_catalog"),
            ("POST", "/v2/fuzzed/blobs/uploads/"),
            ("PUT", "/v2/fuzzed/manifests/v1"),
            ("GET", f"/v2/good/referrers/{GOOD}"),
            ("PUT", "/v2/fuzzed/blobs/uploads/11111111-1111-4111-8111-111111111111"),
        ]
    ),
)
@settings(max_examples=40, deadline=None)
def test_any_query(registry: Registry, query: dict[str, str], path: tuple[str, str]) -> None:
    text = "&".join(f"{name}={quote(value.encode('utf-8', 'surrogatepass'))}" for name, value in query.items())
    answer = registry.call(path[0], f"{path[1]}?{text}", b"{}")
    assert answer.status < 500
    if answer.status >= 400:
        assert answer.code


@given(
    name=st.sampled_from(
        ["Range", "If-None-Match", "If-Range", "Content-Range", "Content-Type", "Accept", "Authorization", "Host"]
    ),
    value=st.one_of(
        st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60),
        st.from_regex(r"bytes=[0-9]*-[0-9]*(,[0-9]*-[0-9]*)?", fullmatch=True),
        st.from_regex(r"(bytes )?[0-9]{1,25}-[0-9]{1,25}(/[0-9]+)?", fullmatch=True),
    ),
    path=st.sampled_from(["/v2/", "/v2/good/manifests/v1", f"/v2/good/blobs/{GOOD}", "/v2/good/blobs/uploads/"]),
    method=st.sampled_from(["GET", "PUT", "PATCH", "POST"]),
)
@settings(max_examples=40, deadline=None)
def test_any_header(registry: Registry, name: str, value: str, path: str, method: str) -> None:
    line = f"{method} {path} HTTP/1.1"
    answer = raw(registry, head(registry, line, **{name: value, "Content-Length": "0"}), end=False)
    assert 100 <= status(answer) < 500


# Manifests.

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.just(GOOD),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
_descriptor = st.fixed_dictionaries(
    {}, optional={"mediaType": _json, "digest": st.just(GOOD) | _json, "size": _json, "data": _json, "urls": _json}
)
_manifest = st.fixed_dictionaries(
    {"schemaVersion": st.just(2) | _json},
    optional={
        "mediaType": st.sampled_from([IMAGE, INDEX]) | _json,
        "config": _descriptor | _json,
        "layers": st.lists(_descriptor, max_size=3) | _json,
        "manifests": st.lists(_descriptor, max_size=3) | _json,
        "blobs": _json,
        "subject": _descriptor | _json,
        "annotations": st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2) | _json,
        "artifactType": _json,
    },
)


@given(
    document=st.one_of(_manifest, _json), content_type=st.sampled_from(["", IMAGE, INDEX, "application/json", "x"])
)
@settings(max_examples=40, deadline=None)
def test_any_manifest_is_stored_byte_for_byte_or_refused(
    registry: Registry, document: object, content_type: str
) -> None:
    body = json.dumps(document).encode()
    answer = registry.call("PUT", f"/v2/fuzzed/manifests/{digest_of(body)}", body, content_type=content_type)
    pulled = registry.call("GET", f"/v2/fuzzed/manifests/{digest_of(body)}")
    if answer.status == 201:
        assert pulled.body == body
        registry.call("DELETE", f"/v2/fuzzed/manifests/{digest_of(body)}")
    else:
        assert answer.status in (400, 404)
        assert answer.code in ("MANIFEST_INVALID", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN")
        assert pulled.status == 404


# Bodies.


def test_an_interrupted_body_is_not_a_manifest(registry: Registry, repository: str) -> None:
    registry.push_image(repository, "v1")
    body = json.dumps(image(annotations={"n": "2"})).encode()
    path = f"/v2/{repository}/manifests/v2"
    for headers, sent in (
        ({"Content-Length": str(len(body))}, body[:-20]),
        ({"Transfer-Encoding": "chunked"}, b"%x\r\n" % len(body) + body[:-20]),
        ({"Transfer-Encoding": "chunked"}, b"%x\r\n" % len(body) + body + b"\r\n"),
    ):
        raw(registry, head(registry, f"PUT {path} HTTP/1.1", **headers, Content_Type=IMAGE), sent)
        assert registry.call("GET", path).status == 404


def test_an_interrupted_body_is_not_a_blob(registry: Registry, repository: str) -> None:
    data = noise(50_000)
    before = registry.usage
    for path in (f"/v2/{repository}/blobs/uploads/", registry.start(repository)):
        method = "POST" if path.endswith("/") else "PUT"
        line = f"{method} {path}?digest={digest_of(data)} HTTP/1.1"
        raw(registry, head(registry, line, Content_Length=str(len(data))), data[:40_000])
        assert registry.call("HEAD", f"/v2/{repository}/blobs/{digest_of(data)}").status == 404
    assert registry.usage == before


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "0x10", "9" * 30, "5, 6"])
def test_invalid_lengths(registry: Registry, repository: str, length: str) -> None:
    line = f"PUT /v2/{repository}/manifests/v1 HTTP/1.1"
    answer = raw(registry, head(registry, line, Content_Length=length), b"{}", end=False)
    assert 400 <= status(answer) < 500
    assert registry.call("GET", f"/v2/{repository}/manifests/v1").status == 404


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"-5\r\nabcde\r\n", b"5\r\nabcdefgh\r\n0\r\n\r\n", b""])
def test_invalid_and_missing_chunks(strict: Registry, repository: str, chunk: bytes) -> None:
    location = strict.start(repository)
    for line in (f"PATCH {location} HTTP/1.1", f"PUT /v2/{repository}/manifests/v1 HTTP/1.1"):
        answer = raw(strict, head(strict, line, Transfer_Encoding="chunked"), chunk, end=False)
        assert 400 <= status(answer) < 500
    assert strict.call("GET", location).status == 204
    assert strict.call("GET", f"/v2/{repository}/manifests/v1").status == 404


@pytest.mark.parametrize(
    "line",
    [
        "GET /v2/good/manifests/a\x00b HTTP/1.1",
        "GET /v2/../../etc/passwd HTTP/1.1",
        "GET /v2/%2e%2e/%2e%2e/etc/passwd HTTP/1.1",
        "GET //v2/good/tags/list HTTP/1.1",
        "GET /v2/" + "a" * 20_000 + "/tags/list HTTP/1.1",
        "GET v2/good/tags/list HTTP/1.1",
        "GET * HTTP/1.1",
        "GET http://[/v2/ HTTP/1.1",
        "GET /v2/good/tags/list?n=1#x HTTP/1.1",
        "FOO /v2/good/tags/list HTTP/1.1",
        "GET /v2/ HTTP/9.9",
        "GET /v2/",
        "\x16\x03\x01",
    ],
    ids=lambda line: repr(line[:30]),
)
def test_invalid_requests(registry: Registry, line: str) -> None:
    answer = raw(registry, head(registry, line), end=False)
    assert not answer or status(answer) < 500
    assert b"root:" not in answer


@pytest.mark.parametrize("value", ["Bearer \xe9", "Basic \xff", "Bearer a.\xe9.c", "\xe9"])
def test_credentials_that_are_not_text(registry: Registry, value: str) -> None:
    for path in ("/v2/_catalog", "/oauth2/token", "/acr/v1/_catalog"):
        answer = raw(registry, head(registry, f"GET {path} HTTP/1.1", Authorization=value), end=False)
        assert status(answer) == 401


def test_a_secret_in_an_invalid_header_is_not_logged(registry: Registry) -> None:
    answer = raw(registry, head(registry, "GET /v2/ HTTP/1.1", Authorization="Basic c2VjcmV0\x01"), end=False)
    assert status(answer) == 400
    log = registry.cloud.log("registry")
    assert "it was BadHttpMessage" in log
    assert "c2VjcmV0" not in log


def test_a_thousand_scopes_and_headers(registry: Registry) -> None:
    scopes = "&".join(f"scope=repository:r{number}:pull,push" for number in range(1000))
    answer = registry.call("GET", f"/oauth2/token?service={registry.host}&{scopes}")
    assert answer.status < 500
    many = {f"X-{number}": "y" * 50 for number in range(1000)}
    assert status(raw(registry, head(registry, "GET /v2/ HTTP/1.1", **many), end=False)) < 500


def test_a_request_for_an_unknown_registry(registry: Registry) -> None:
    answer = raw(registry, head(registry, "GET /v2/ HTTP/1.1", Host="nowhere.azurecr.io"), end=False)
    assert status(answer) in (401, 404)
    for host in ("..azurecr.io", "%00.azurecr.io", "[::1", "a" * 5000 + ".azurecr.io", ""):
        answer = raw(registry, head(registry, "GET /v2/ HTTP/1.1", Host=host), end=False)
        assert status(answer) < 500

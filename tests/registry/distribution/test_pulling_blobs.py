"""Pulling and deleting blobs: completely, in ranges, with conditions (OCI Distribution 1.1, "Pulling blobs"; RFC 9110)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.registry.client import Registry, digest_of, noise

DATA = noise(100_000)
DIGEST = digest_of(DATA)
PATH = "/v2/pulling-blobs/blobs/" + DIGEST


@pytest.fixture(scope="module")
def registry(make_registry: Callable[[], Registry]) -> Registry:
    """A registry for this module, with one blob."""
    made = make_registry()
    made.push_blob("pulling-blobs", DATA)
    return made


def test_a_complete_blob(registry: Registry) -> None:
    for method in ("GET", "HEAD"):
        answer = registry.call(method, PATH)
        assert answer.status == 200
        assert answer.headers["Content-Length"] == str(len(DATA))
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert answer.headers["ETag"] == f'"{DIGEST}"'
        assert answer.digest == DIGEST
        assert answer.body == (DATA if method == "GET" else b"")


@pytest.mark.parametrize(
    ("header", "first", "after"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99999", 0, 100_000),
        ("bytes=10-19", 10, 20),
        ("bytes=99999-", 99_999, 100_000),
        ("bytes=50000-999999999", 50_000, 100_000),
        ("bytes=-1", 99_999, 100_000),
        ("bytes=-999999", 0, 100_000),
    ],
)
def test_a_range(registry: Registry, header: str, first: int, after: int) -> None:
    for method in ("GET", "HEAD"):
        answer = registry.call(method, PATH, range=header)
        assert answer.status == 206
        assert answer.headers["Content-Range"] == f"bytes {first}-{after - 1}/{len(DATA)}"
        assert answer.headers["Content-Length"] == str(after - first)
        assert answer.digest == DIGEST
        assert answer.body == (DATA[first:after] if method == "GET" else b"")


@pytest.mark.parametrize("header", ["bytes=100000-", "bytes=100000-100001", "bytes=-0", "bytes=999999999999999999-"])
def test_a_range_beyond_the_end(registry: Registry, header: str) -> None:
    answer = registry.call("GET", PATH, range=header)
    assert answer.status == 416
    assert answer.code == "SIZE_INVALID"
    assert answer.headers["Content-Range"] == f"bytes */{len(DATA)}"


@pytest.mark.parametrize(
    "header", ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=9-1", "bytes=0-1,4-5", "x=0-1"]
)
def test_invalid_ranges_are_ignored(registry: Registry, header: str) -> None:
    answer = registry.call("GET", PATH, range=header)
    assert (answer.status, answer.body) == (200, DATA)


def test_if_range_must_name_the_content(registry: Registry) -> None:
    assert registry.call("GET", PATH, range="bytes=0-1", if_range=f'"{DIGEST}"').status == 206
    assert registry.call("GET", PATH, range="bytes=0-1", if_range='"other"').status == 200


def test_conditional_requests_get_304(registry: Registry) -> None:
    for header, status in ((f'"{DIGEST}"', 304), (f'"a", W/"{DIGEST}"', 304), ("*", 304), ('"a"', 200)):
        answer = registry.call("GET", PATH, if_none_match=header)
        assert answer.status == status
        assert answer.digest == DIGEST
        assert answer.body == (b"" if status == 304 else DATA)


def test_an_empty_blob(registry: Registry) -> None:
    digest = registry.push_blob("pulling-blobs", b"")
    answer = registry.call("GET", f"/v2/pulling-blobs/blobs/{digest}")
    assert (answer.status, answer.headers["Content-Length"], answer.body) == (200, "0", b"")
    assert registry.call("GET", f"/v2/pulling-blobs/blobs/{digest}", range="bytes=0-").status == 416


def test_only_a_repository_with_the_blob_serves_it(registry: Registry) -> None:
    for path in (f"/v2/pulling-blobs/other/blobs/{DIGEST}", f"/v2/pulling-blobs/blobs/{digest_of(b'absent')}"):
        for method in ("GET", "HEAD", "DELETE"):
            answer = registry.call(method, path)
            assert answer.status == 404
            assert method == "HEAD" or answer.code == "BLOB_UNKNOWN"


def test_a_deletion_is_immediate_and_only_in_its_repository(registry: Registry) -> None:
    before = registry.usage
    data = noise(5_000, seed=1)
    digest = digest_of(data)
    for name in ("one", "two"):
        registry.push_blob(name, data)
    assert registry.usage == before + len(data)
    assert registry.call("DELETE", f"/v2/one/blobs/{digest}").status == 202
    assert registry.call("GET", f"/v2/one/blobs/{digest}").status == 404
    assert registry.call("DELETE", f"/v2/one/blobs/{digest}").status == 404
    assert registry.call("GET", f"/v2/two/blobs/{digest}").body == data
    assert registry.call("DELETE", f"/v2/two/blobs/{digest}").status == 202
    assert registry.usage == before
    assert registry.push_blob("one", data) == digest
    assert registry.call("GET", f"/v2/one/blobs/{digest}").body == data

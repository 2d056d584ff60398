"""Pushing blobs: in one request, in chunks, streamed, interrupted, mounted (OCI Distribution 1.1, "Pushing blobs")."""

from __future__ import annotations

import gzip
import select
import threading
from collections.abc import Callable

import pytest

from tests.registry.client import Answer, Registry, digest_of, noise

ALGORITHMS = ["sha256", "sha512"]


def finish(registry: Registry, location: str, digest: str, body: bytes = b"", **headers: str) -> Answer:
    return registry.call("PUT", f"{location}?digest={digest}", body, **headers)


def pull(registry: Registry, repository: str, digest: str) -> bytes:
    answer = registry.call("GET", f"/v2/{repository}/blobs/{digest}")
    assert answer.status == 200, answer
    assert answer.digest == digest
    return answer.body


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("data", [b"", noise(1_500_000)], ids=["empty", "1.5 MB"])
def test_post_then_put(registry: Registry, repository: str, data: bytes, algorithm: str) -> None:
    digest = digest_of(data, algorithm)
    answer = finish(registry, registry.start(repository), digest, data, content_type="application/octet-stream")
    assert answer.status == 201
    assert answer.digest == digest
    assert answer.location == f"/v2/{repository}/blobs/{digest}"
    assert pull(registry, repository, digest) == data


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_single_post(registry: Registry, repository: str, algorithm: str) -> None:
    assert pull(registry, repository, registry.push_blob(repository, b"at once", algorithm)) == b"at once"


@pytest.mark.parametrize("announced", ["", "?digest-algorithm=sha512"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_chunks_in_order(registry: Registry, repository: str, algorithm: str, announced: str) -> None:
    data, step = noise(10_000), 4_000
    location = registry.call("POST", f"/v2/{repository}/blobs/uploads/{announced}").location
    for first in range(0, len(data), step):
        chunk = data[first : first + step]
        last = first + len(chunk) - 1
        answer = registry.call("PATCH", location, chunk, content_range=f"{first}-{last}")
        assert answer.status == 202
        assert answer.headers["Range"] == f"0-{last}"
        location = answer.location
    assert finish(registry, location, digest_of(data, algorithm)).status == 201
    assert pull(registry, repository, digest_of(data, algorithm)) == data


def test_the_last_chunk_may_come_with_the_put(registry: Registry, repository: str) -> None:
    location = registry.start(repository)
    registry.call("PATCH", location, b"0123", content_range="0-3")
    assert finish(registry, location, digest_of(b"01234567"), b"4567", content_range="4-7").status == 201


def test_a_stream_needs_neither_length_nor_range(registry: Registry, repository: str) -> None:
    location = registry.start(repository)
    answer = registry.call("PATCH", location, iter([b"a" * 70_000, b"b" * 70_000]))
    assert (answer.status, answer.headers["Range"]) == (202, "0-139999")
    assert finish(registry, location, digest_of(b"a" * 70_000 + b"b" * 70_000)).status == 201


@pytest.mark.parametrize("content_range", ["0-3", "1-4", "5-8", "400-403"])
def test_a_chunk_out_of_order_is_416_with_the_offset(registry: Registry, repository: str, content_range: str) -> None:
    location = registry.start(repository)
    registry.call("PATCH", location, b"0123", content_range="0-3")
    for answer in (
        registry.call("PATCH", location, b"xxxx", content_range=content_range),
        finish(registry, location, digest_of(b"0123xxxx"), b"xxxx", content_range=content_range),
    ):
        assert answer.status == 416
        assert answer.code == "BLOB_UPLOAD_INVALID"
        assert answer.headers["Range"] == "0-3"
        assert answer.location == location
    assert finish(registry, location, digest_of(b"01234567"), b"4567", content_range="4-7").status == 201


@pytest.mark.parametrize("content_range", ["", "x", "3-0", "0-4", "-4", "0-", "0-" + "9" * 40, "bytes 0-2/4"])
def test_a_range_that_is_not_that_of_the_chunk_is_refused(
    registry: Registry, repository: str, content_range: str
) -> None:
    answer = registry.call("PATCH", registry.start(repository), b"0123", content_range=content_range)
    assert (answer.status, answer.code) == (400, "SIZE_INVALID")


def test_a_stream_that_is_not_as_long_as_its_range_is_refused(registry: Registry, repository: str) -> None:
    for content_range in ("0-1", "0-9"):
        answer = registry.call("PATCH", registry.start(repository), iter([b"0123"]), content_range=content_range)
        assert (answer.status, answer.code) == (400, "SIZE_INVALID")


def test_the_status_reports_the_offset(registry: Registry, repository: str) -> None:
    location = registry.start(repository)
    registry.call("PATCH", location, b"0123456789")
    answer = registry.call("GET", location)
    assert (answer.status, answer.headers["Range"], answer.location) == (204, "0-9", location)


def test_a_cancelled_upload_is_unknown(registry: Registry, repository: str) -> None:
    location = registry.start(repository)
    assert registry.call("DELETE", location).status == 204
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        answer = registry.call(method, f"{location}?digest={digest_of(b'')}", b"")
        assert (answer.status, answer.code) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_a_digest_mismatch_stores_nothing(registry: Registry, repository: str) -> None:
    wrong = digest_of(b"evil")
    location = registry.start(repository)
    for answer in (
        finish(registry, location, wrong, b"good"),
        registry.call("POST", f"/v2/{repository}/blobs/uploads/?digest={wrong}", b"good"),
    ):
        assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
        assert digest_of(b"good") in answer.json["errors"][0]["message"]
    for digest in (wrong, digest_of(b"good")):
        assert registry.call("HEAD", f"/v2/{repository}/blobs/{digest}").status == 404
    assert registry.call("GET", location).status == 404


@pytest.mark.parametrize("digest", ["", "sha256", "sha256:", "sha256:abc", f"md5:{'0' * 32}", f"sha256:{'A' * 64}"])
def test_an_invalid_digest_is_refused_and_the_upload_continues(
    registry: Registry, repository: str, digest: str
) -> None:
    location = registry.start(repository)
    registry.call("PATCH", location, b"kept")
    answer = finish(registry, location, digest)
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert registry.call("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", b"kept").code == "DIGEST_INVALID"
    assert finish(registry, location, digest_of(b"kept")).status == 201


def test_an_upload_continues_after_a_lost_connection(registry: Registry, repository: str) -> None:
    data = noise(600_000)
    location = registry.start(repository)
    connection = registry.connect()
    connection.putrequest("PATCH", location, skip_host=True)
    for name, value in ({"Host": registry.host, "Content-Length": str(len(data))} | registry.authorization).items():
        connection.putheader(name, value)
    connection.endheaders(data[:300_000])
    while registry.call("GET", location).headers["Range"] == "0-0":
        pass  # the status is available while a request runs
    connection.close()
    answer = registry.call(
        "PATCH", location, b"", content_range="1000000-999999"
    )  # waits for the interrupted request
    received = int(answer.headers["Range"].removeprefix("0-")) + 1
    assert 0 < received <= 300_000
    answer = registry.call("PATCH", location, data[received:], content_range=f"{received}-{len(data) - 1}")
    assert answer.status == 202
    assert finish(registry, location, digest_of(data)).status == 201
    assert pull(registry, repository, digest_of(data)) == data


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_upload_continues_after_a_kill_of_the_registry(
    registry: Registry, repository: str, algorithm: str
) -> None:
    location = registry.start(repository)
    registry.call("PATCH", location, b"before ")
    registry.cloud.kill("registry")
    answer = registry.call("GET", location)
    assert (answer.status, answer.headers["Range"]) == (204, "0-6")
    assert registry.call("PATCH", location, b"after", content_range="7-11").status == 202
    assert finish(registry, location, digest_of(b"before after", algorithm)).status == 201


def test_a_pushed_blob_survives_a_kill_of_the_registry(registry: Registry, repository: str) -> None:
    digest = registry.push_image(repository, "v1")
    registry.cloud.kill("registry")
    assert registry.call("GET", f"/v2/{repository}/manifests/v1").digest == digest
    assert pull(registry, repository, digest_of(b"config ")) == b"config "


def test_concurrent_pushes_of_one_blob(make_registry: Callable[[], Registry], repository: str) -> None:
    registry = make_registry()
    data = noise(400_000, seed=7)
    digest = digest_of(data)
    answers: list[Answer] = []

    def push(number: int) -> None:
        location = registry.start(f"{repository}/{number % 3}")
        answers.append(finish(registry, location, digest, data))

    threads = [threading.Thread(target=push, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status for answer in answers] == [201] * 8
    assert registry.usage == len(data)
    for number in range(3):
        assert pull(registry, f"{repository}/{number}", digest) == data


def test_a_session_belongs_to_its_repository(registry: Registry, repository: str) -> None:
    location = registry.start(repository)
    elsewhere = location.replace(repository, f"{repository}/other")
    answer = registry.call("PATCH", elsewhere, b"x")
    assert (answer.status, answer.code) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_a_session_belongs_to_its_registry(
    registry: Registry, make_registry: Callable[[], Registry], repository: str
) -> None:
    answer = make_registry().call("PATCH", registry.start(repository), b"x")
    assert (answer.status, answer.code) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_a_session_belongs_to_its_principal(registry: Registry, pusher: Registry, repository: str) -> None:
    location = registry.start(repository)
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        answer = pusher.call(method, f"{location}?digest={digest_of(b'')}", b"")
        assert (answer.status, answer.code) == (403, "DENIED")
    assert registry.call("GET", location).status == 204


@pytest.mark.parametrize("source", ["?mount={digest}&from={source}", "?mount={digest}"], ids=["from", "anonymous"])
def test_a_blob_is_mounted_from_another_repository(registry: Registry, repository: str, source: str) -> None:
    data = repository.encode()
    digest = registry.push_blob(f"{repository}/source", data)
    query = source.format(digest=digest, source=f"{repository}/source")
    answer = registry.call("POST", f"/v2/{repository}/target/blobs/uploads/{query}")
    assert (answer.status, answer.digest) == (201, digest)
    assert answer.location == f"/v2/{repository}/target/blobs/{digest}"
    assert pull(registry, f"{repository}/target", digest) == data
    registry.call("DELETE", f"/v2/{repository}/source/blobs/{digest}")
    assert pull(registry, f"{repository}/target", digest) == data


@pytest.mark.parametrize(
    "query", ["?mount={other}&from={source}", "?mount={digest}&from={source}x", "?mount={other}"]
)
def test_an_impossible_mount_becomes_an_upload(registry: Registry, repository: str, query: str) -> None:
    source = f"{repository}/source"
    digest = registry.push_blob(source, repository.encode())
    query = query.format(digest=digest, other=digest_of(b"never pushed"), source=source)
    answer = registry.call("POST", f"/v2/{repository}/target/blobs/uploads/{query}")
    assert answer.status == 202
    assert finish(registry, answer.location, digest_of(b"x"), b"x").status == 201


def test_a_blob_is_not_mounted_across_registries(
    registry: Registry, make_registry: Callable[[], Registry], repository: str
) -> None:
    digest = registry.push_blob(repository, repository.encode())
    other = make_registry()
    for query in (f"?mount={digest}&from={repository}", f"?mount={digest}"):
        assert other.call("POST", f"/v2/{repository}/blobs/uploads/{query}").status == 202


def test_a_client_that_disconnects_during_verification(registry: Registry, repository: str) -> None:
    data = noise(2_000_000, seed=3)
    location = registry.start(repository)
    connection = registry.connect()
    connection.request(
        "PUT", f"{location}?digest={digest_of(data)}", data, {"Host": registry.host, **registry.authorization}
    )
    connection.close()
    answer = finish(registry, location, digest_of(data), data)
    if answer.status != 201:  # the first one finished
        assert answer.code in ("BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID")
        assert finish(registry, registry.start(repository), digest_of(data), data).status == 201
    assert pull(registry, repository, digest_of(data)) == data


def test_a_pipelined_request_after_a_large_body(registry: Registry, repository: str) -> None:
    data = noise(700_001, seed=4)
    location = registry.start(repository)
    fields = {"Host": registry.host, **registry.authorization}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    put = f"PUT {location}?digest={digest_of(data)} HTTP/1.1\r\n{lines}Content-Length: {len(data)}\r\n\r\n"
    get = f"GET /v2/{repository}/blobs/{digest_of(data)} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n"
    with registry.open() as connection:
        connection.sendall(put.encode() + data + get.encode())
        answers = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert answers.startswith(b"HTTP/1.1 201 ")
    assert answers.count(b"HTTP/1.1 ") == 2
    assert answers.endswith(b"\r\n\r\n" + data)


def test_a_large_body_in_small_pieces(registry: Registry, repository: str) -> None:
    data = noise(150_000, seed=5)
    connection = registry.connect()
    connection.putrequest("PUT", f"{registry.start(repository)}?digest={digest_of(data)}", skip_host=True)
    for name, value in {"Host": registry.host, "Content-Length": str(len(data)), **registry.authorization}.items():
        connection.putheader(name, value)
    connection.endheaders()
    first, step = 0, 1
    while first < len(data):
        connection.send(data[first : first + step])
        first, step = first + step, step * 7 % 6007
    assert connection.getresponse().read() == b""
    connection.close()
    assert pull(registry, repository, digest_of(data)) == data


def test_a_connection_stays_usable_after_a_digest_mismatch(registry: Registry, repository: str) -> None:
    data = noise(300_000, seed=6)
    connection = registry.connect()
    fields = {"Host": registry.host, **registry.authorization}
    for content, status in ((data[1:], 400), (data, 201)):
        place = f"{registry.start(repository)}?digest={digest_of(data)}"
        connection.request("PUT", place, content, fields)
        response = connection.getresponse()
        assert response.status == status, response.read()
        response.read()
    connection.close()
    assert pull(registry, repository, digest_of(data)) == data


def test_a_stalled_large_body_is_408_and_its_bytes_are_kept(strict: Registry, repository: str) -> None:
    data = noise(99_000)
    location = strict.start(repository)
    connection = strict.connect()
    connection.putrequest("PATCH", location, skip_host=True)
    for name, value in {"Host": strict.host, "Content-Length": str(len(data)), **strict.authorization}.items():
        connection.putheader(name, value)
    connection.endheaders(data[:20_000])
    response = connection.getresponse()
    assert (response.status, b"SIZE_INVALID" in response.read()) == (408, True)
    connection.close()
    assert strict.call("GET", location).headers["Range"] == "0-19999"
    assert strict.call("PATCH", location, data[20_000:], content_range="20000-98999").status == 202
    assert finish(strict, location, digest_of(data)).status == 201


@pytest.mark.parametrize("length", [99_000, 9_000], ids=["by threads", "by the loop"])
def test_a_trickling_body_is_408(strict: Registry, repository: str, length: int) -> None:
    connection = strict.connect()
    connection.putrequest("PATCH", strict.start(repository), skip_host=True)
    for name, value in {"Host": strict.host, "Content-Length": str(length), **strict.authorization}.items():
        connection.putheader(name, value)
    connection.endheaders()
    for _ in range(300):
        connection.send(b"a")
        if select.select([connection.sock], [], [], 0.1)[0]:
            break
    else:
        pytest.fail("it is kept for ever")
    response = connection.getresponse()
    assert (response.status, b"SIZE_INVALID" in response.read()) == (408, True)
    connection.close()


def test_content_encoding_is_not_decoded(registry: Registry, repository: str) -> None:
    data = gzip.compress(noise(200_000, seed=8))
    for body in (data[:1000], data):
        answer = finish(registry, registry.start(repository), digest_of(body), body, content_encoding="gzip")
        assert answer.status == 201
        assert pull(registry, repository, digest_of(body)) == body

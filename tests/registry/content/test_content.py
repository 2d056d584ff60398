"""The contract of the content store (`registry/content/store.py`), tested for every back end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulet.common.digests import Digest
from cumulet.registry.content.filesystem import FileContent
from cumulet.registry.content.store import Content, DigestMismatchError, Part, UnknownUploadError
from tests.registry.client import digest_of, noise

#: Opens a store again, like a restarted process.
Open = Callable[[], Content]

BACK_ENDS: dict[str, Callable[[Path], Content]] = {"file system": FileContent}
NO_SESSION = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(params=BACK_ENDS)
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    return lambda: BACK_ENDS[request.param](tmp_path)


@pytest.fixture
def content(reopen: Open) -> Content:
    return reopen()


def pieces(*parts: bytes, breaks_off: bool = False) -> Part:
    async def made() -> AsyncIterator[bytes]:
        for part in parts:
            yield part
        if breaks_off:
            raise ConnectionResetError("the client is gone")

    return Part(made())


async def read(content: Content, digest: Digest, first: int, after: int) -> bytes:
    return b"".join([piece async for piece in content.read(digest, first, after)])


async def store(content: Content, data: bytes, algorithm: str = "sha256") -> Digest:
    session = await content.start()
    await content.append(session, pieces(data), algorithm)
    digest = digest_of(data, algorithm)
    assert await content.commit(session, digest) == len(data)
    return digest


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("data", [b"", b"x", noise(3_000_000)], ids=["empty", "one byte", "3 MB"])
async def test_a_blob_is_read_completely_and_in_part(content: Content, data: bytes, algorithm: str) -> None:
    digest = await store(content, data, algorithm)
    assert await content.size(digest) == len(data)
    assert await read(content, digest, 0, len(data)) == data
    assert await read(content, digest, len(data) // 3, len(data) // 2) == data[len(data) // 3 : len(data) // 2]
    assert [d async for d in content.digests()] == [digest]
    path = content.path(digest)
    assert path is None or path.read_bytes() == data


async def test_an_upload_is_invisible_until_it_is_committed(content: Content) -> None:
    session = await content.start()
    await content.append(session, pieces(b"whole"), "sha256")
    assert await content.size(digest_of(b"whole")) is None
    assert [d async for d in content.digests()] == []
    await content.commit(session, digest_of(b"whole"))
    assert await content.size(digest_of(b"whole")) == 5
    assert [s async for s, _ in content.uploads()] == []


async def test_parts_are_appended_across_restarts(reopen: Open) -> None:
    session = await reopen().start()
    for number, part in enumerate([b"one ", b"two ", b"three"]):
        content = reopen()
        assert await content.offset(session) == [0, 4, 8][number]
        assert await content.append(session, pieces(part), "sha256") == [4, 8, 13][number]
    assert await reopen().commit(session, digest_of(b"one two three")) == 13


async def test_an_interrupted_append_keeps_its_bytes(reopen: Open) -> None:
    content = reopen()
    session = await content.start()
    with pytest.raises(ConnectionResetError):
        await content.append(session, pieces(b"ab", b"cd", breaks_off=True), "sha256")
    assert await content.offset(session) == 4
    assert await content.append(session, pieces(b"ef"), "sha256") == 6
    assert await content.commit(session, digest_of(b"abcdef")) == 6


@pytest.mark.parametrize("streamed", ["sha256", "sha512"])
@pytest.mark.parametrize("named", ["sha256", "sha512"])
async def test_the_commit_selects_the_algorithm(content: Content, streamed: str, named: str) -> None:
    session = await content.start()
    await content.append(session, pieces(b"ab"), streamed)
    await content.append(session, pieces(b"cd"), "sha256")
    await content.commit(session, digest_of(b"abcd", named))
    assert await content.size(digest_of(b"abcd", named)) == 4


async def test_a_digest_mismatch_publishes_nothing_and_reports_the_digest(content: Content) -> None:
    session = await content.start()
    await content.append(session, pieces(b"good"), "sha256")
    with pytest.raises(DigestMismatchError, match=digest_of(b"good")):
        await content.commit(session, digest_of(b"evil"))
    assert [d async for d in content.digests()] == []
    assert await content.offset(session) == 4
    await content.commit(session, digest_of(b"good"))


async def test_a_second_commit_gives_the_same_blob(content: Content) -> None:
    digest = await store(content, b"twice")
    sessions = [await content.start() for _ in range(3)]
    await asyncio.gather(*(content.append(session, pieces(b"twi", b"ce"), "sha256") for session in sessions))
    for session in sessions:
        assert await content.commit(session, digest) == 5
    assert [d async for d in content.digests()] == [digest]
    assert await read(content, digest, 0, 5) == b"twice"
    assert [s async for s, _ in content.uploads()] == []


async def test_removal_and_cancellation_are_idempotent(content: Content) -> None:
    digest = await store(content, b"gone")
    session = await content.start()
    await content.append(session, pieces(b"x"), "sha256")
    for _ in range(2):
        await content.remove(digest)
        await content.cancel(session)
    assert await content.size(digest) is None
    for ask in (content.offset(session), content.append(session, pieces(b"y"), "sha256")):
        with pytest.raises(UnknownUploadError):
            await ask
    with pytest.raises(UnknownUploadError):
        await content.commit(session, digest_of(b"x"))
    assert await store(content, b"gone") == digest


async def test_an_upload_that_does_not_exist(content: Content) -> None:
    for ask in (
        content.offset(NO_SESSION),
        content.append(NO_SESSION, pieces(), "sha256"),
        content.commit(NO_SESSION, digest_of(b"")),
    ):
        with pytest.raises(UnknownUploadError):
            await ask


async def test_uploads_are_listed_with_their_idle_time(reopen: Open) -> None:
    session = await reopen().start()
    ((listed, idle),) = [entry async for entry in reopen().uploads()]
    assert listed == session
    assert -1 < idle < 60


async def test_a_reader_during_a_removal_gets_no_wrong_bytes(content: Content) -> None:
    data = noise(4_000_000)
    digest = await store(content, data)
    reader = content.read(digest, 0, len(data))
    got = await anext(reader)
    await content.remove(digest)
    with_rest = got + b"".join([piece async for piece in reader])
    assert data.startswith(with_rest)


@settings(max_examples=40, deadline=None)
@given(parts=st.lists(st.binary(max_size=50), max_size=6), restarts=st.sets(st.integers(0, 5)), wrong=st.booleans())
def test_any_division_into_parts_gives_the_same_blob(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], restarts: set[int], wrong: bool
) -> None:
    whole = b"".join(parts)

    async def run(make: Callable[[Path], Content], root: Path) -> None:
        content = make(root)
        session = await content.start()
        for number, part in enumerate(parts):
            if number in restarts:
                content = make(root)
            await content.append(session, pieces(part), "sha256")
        digest = digest_of(whole + b"!" * wrong)
        if wrong:
            with pytest.raises(DigestMismatchError):
                await content.commit(session, digest)
            assert await content.size(digest) is None
        else:
            assert await content.commit(session, digest) == len(whole)
            assert await read(content, digest, 0, len(whole)) == whole

    for make in BACK_ENDS.values():
        asyncio.run(run(make, tmp_path_factory.mktemp("content")))


def test_the_folder_is_an_image_layout(tmp_path: Path) -> None:
    digest = asyncio.run(store(FileContent(tmp_path), b"layout"))
    assert json.loads((tmp_path / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads((tmp_path / "index.json").read_bytes())["schemaVersion"] == 2
    assert (tmp_path / "blobs" / digest.replace(":", "/")).read_bytes() == b"layout"

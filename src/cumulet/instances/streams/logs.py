"""Reads and follows a container's log, which conmon writes in the kubelet's format: time, stream, `F` or `P`, text."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cumulet.common.ascii import is_digits

_IN_MODIFY = 2
#: The most bytes of a log that are read, because its size is not limited. A kubelet keeps 10 MiB.
_RECENT = 16 * 1024 * 1024
_CHUNK = 256 * 1024
_LIBC = ctypes.CDLL(None, use_errno=True)


class Query(NamedTuple):
    """The selected part of a log: the last `tail` lines, since a time, at most `limit` bytes."""

    tail: int | None = None
    since: datetime | None = None
    timestamps: bool = False
    limit: int | None = None


def read(path: Path, query: Query) -> bytes:
    """Return the selected part of a log."""
    try:
        with path.open("rb") as file:
            lines = _recent(file)
    except FileNotFoundError:
        return b""
    return _limited(_shown(_last(lines, query.tail), query), query.limit)


async def follow(path: Path, query: Query, ended: asyncio.Event) -> AsyncIterator[bytes]:
    """Yield the selected part of a log, then what is written to it, until `ended` is set and everything is read."""
    changed, descriptor = _watch(path)
    loop = asyncio.get_running_loop()
    waiting = asyncio.create_task(ended.wait())
    try:
        with path.open("rb") as file:
            lines = _recent(file)
            if shown := _shown(_last(lines, query.tail), query):
                yield shown
            pending = b""
            while True:
                done = ended.is_set()
                changed.clear()
                raw = file.read(_CHUNK)
                if raw:
                    *whole, pending = (pending + raw).split(b"\n")
                    if shown := _shown((line + b"\n" for line in whole), query):
                        yield shown
                elif done:
                    return
                else:
                    change = asyncio.create_task(changed.wait())
                    await asyncio.wait([change, waiting], return_when=asyncio.FIRST_COMPLETED)
                    change.cancel()
    finally:
        waiting.cancel()
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _recent(file: BinaryIO) -> list[bytes]:
    """Return the last complete lines, up to `_RECENT` bytes, and leave the file behind them."""
    start = max(0, os.fstat(file.fileno()).st_size - _RECENT)
    file.seek(start)
    raw = file.read(_RECENT)
    end = raw.rfind(b"\n") + 1
    file.seek(start + end)
    first = raw.find(b"\n") + 1 if start else 0
    return [line + b"\n" for line in raw[first:end].split(b"\n")[:-1]]


def _watch(path: Path) -> tuple[asyncio.Event, int]:
    """Return an event that is set when the file grows (inotify(7)), and the descriptor to close."""
    descriptor = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if _LIBC.inotify_add_watch(descriptor, os.fsencode(path), _IN_MODIFY) < 0:
        error = ctypes.get_errno()
        os.close(descriptor)
        raise OSError(error, os.strerror(error), str(path))
    changed = asyncio.Event()

    def read_all() -> None:
        os.read(descriptor, 65536)
        changed.set()

    asyncio.get_running_loop().add_reader(descriptor, read_all)
    return changed, descriptor


def _last(lines: list[bytes], count: int | None) -> list[bytes]:
    """Return the last `count` lines of output; a line in several parts counts once."""
    if count is None:
        return lines
    if count <= 0:
        return []
    index = len(lines)
    while index and count:
        index -= 1
        if index == 0 or not _is_part(lines[index - 1]):
            count -= 1
    return lines[index:]


def _is_part(line: bytes) -> bool:
    return line.split(b" ", 3)[2:3] == [b"P"]


def _shown(lines: Iterable[bytes], query: Query) -> bytes:
    """Return the text of the lines that the query selects, with their times if selected."""
    output: list[bytes] = []
    for line in lines:
        moment, _, rest = line.partition(b" ")
        _, _, rest = rest.partition(b" ")
        kind, _, text = rest.partition(b" ")
        if query.since is not None and _time(moment) < query.since:
            continue
        if kind == b"P":
            text = text.removesuffix(b"\n")
        output.append(moment.replace(b"+00:00", b"Z") + b" " + text if query.timestamps else text)
    return b"".join(output)


def _time(text: bytes) -> datetime:
    """Parse a time of conmon, which has nanoseconds, to the microseconds of a `datetime`."""
    decoded = text.decode(errors="replace")
    head, _, tail = decoded.partition(".")
    digits = "".join(char for char in tail[:9] if is_digits(char))
    zone = tail[len(digits) :] or "Z"
    try:
        return datetime.fromisoformat(f"{head}.{digits[:6]:0<6}{zone}").astimezone(UTC)
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)


def _limited(raw: bytes, limit: int | None) -> bytes:
    return raw if limit is None else raw[:limit]

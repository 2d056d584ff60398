"""Reads and follows a container's log, across its files, in chunks."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, ParamSpec, TypeVar

from cumulet.instances.streams.changes import Changes
from cumulet.instances.streams.log_files import LogFiles
from cumulet.instances.streams.log_lines import Selection, is_part, parse

_CHUNK = 256 * 1024
#: Logs are read while layers are unpacked, which keeps the room's other threads busy for long.
_THREADS = ThreadPoolExecutor(4, thread_name_prefix="logs")
P = ParamSpec("P")
T = TypeVar("T")


class Query(NamedTuple):
    """The selected part of a log: the last `tail` lines, since a time, at most `limit` bytes from its start."""

    tail: int | None = None
    since: datetime | None = None
    timestamps: bool = False
    limit: int | None = None


async def read(log: LogFiles, query: Query) -> AsyncGenerator[bytes, None]:
    """Yield the selected part of a log as it is now."""
    reader = await _on_thread(Reader, log, query)
    try:
        while (output := await _on_thread(reader.read)) is not None:
            yield output
    finally:
        reader.close()


async def end_of(log: LogFiles, query: Query, size: int) -> bytes:
    """Return the last `size` bytes of the selected part of a log."""
    kept: deque[bytes] = deque()
    length = 0
    async for output in read(log, query):
        kept.append(output)
        length += len(output)
        while length - len(kept[0]) >= size:
            length -= len(kept.popleft())
    return b"".join(kept)[-size:]


async def follow(log: LogFiles, query: Query, changes: Changes, ended: asyncio.Event) -> AsyncGenerator[bytes, None]:
    """Yield the selected part of a log, then what is written to it, until `ended` was set and everything is read."""
    reader = await _on_thread(Reader, log, query)
    async with contextlib.aclosing(_follow(reader, changes, ended, Reader.read)) as outputs:
        async for output in outputs:
            yield output


async def from_now_on(log: LogFiles) -> Reader:
    """Return a reader of what is written to a log from now on."""
    return await _on_thread(Reader, log, Query(tail=0))


async def follow_streams(
    reader: Reader, changes: Changes, ended: asyncio.Event
) -> AsyncGenerator[tuple[int, bytes], None]:
    """Yield what a reader has and gets, each with its stream: 1 for the output, 2 for errors. It closes the reader."""
    async with contextlib.aclosing(_follow(reader, changes, ended, Reader.read_streams)) as outputs:
        async for output in outputs:
            for item in output:
                yield item


async def _follow(
    reader: Reader, changes: Changes, ended: asyncio.Event, read: Callable[[Reader], T | None]
) -> AsyncGenerator[T, None]:
    waiting = asyncio.create_task(ended.wait())
    try:
        with changes.of(reader.folder) as changed:
            while True:
                done = waiting.done() or ended.is_set()
                changed.clear()
                output = await _on_thread(read, reader)
                if output is not None:
                    yield output
                elif done or reader.full:
                    return
                else:
                    change = asyncio.create_task(changed.wait())
                    await asyncio.wait([change, waiting], return_when=asyncio.FIRST_COMPLETED)
                    change.cancel()
    finally:
        waiting.cancel()
        reader.close()


async def _on_thread(work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    return await asyncio.get_running_loop().run_in_executor(_THREADS, partial(work, *arguments, **options))


class Reader:
    """Reads the selected part of a log. Call it on a thread."""

    def __init__(self, log: LogFiles, query: Query) -> None:
        self._log = log
        self._selection = Selection(query.since, timestamps=query.timestamps)
        self._left = query.limit
        self._pending = b""
        #: The open files that are not read to their ends, the oldest first.
        self._files = deque(log.open_all())
        self._go_to_start(query)

    @property
    def folder(self) -> Path:
        """The folder of the log."""
        return self._log.path.parent

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return self._left is not None and self._left <= 0

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()

    def read(self) -> bytes | None:
        """Return some output, or `None` if there is no more for now."""
        while not self.full and (raw := self._lines()):
            if output := self._selection.shown(raw)[: self._left]:
                if self._left is not None:
                    self._left -= len(output)
                return output
        return None

    def read_streams(self) -> list[tuple[int, bytes]] | None:
        """Return some output, each with its stream, or `None` if there is no more for now."""
        raw = self._lines()
        return [(2 if line.stream == b"stderr" else 1, line.text) for line in parse(raw)] if raw else None

    def _go_to_start(self, query: Query) -> None:
        """Go to where the selected part begins."""
        if query.tail is not None:
            index, offset = _start_of_last([*self._files], query.tail)
            for _ in range(index):
                self._files.popleft().close()
            if self._files:
                self._files[0].seek(offset)
        elif query.since is not None:
            # A file that was written last before that time has nothing of it.
            while len(self._files) > 1 and os.fstat(self._files[0].fileno()).st_mtime < query.since.timestamp():
                self._files.popleft().close()

    def _lines(self) -> bytes:
        """Return the next whole lines of the log."""
        if not self._files:
            self._files.extend(self._log.open_all())
        while self._files:
            if raw := self._files[0].read(_CHUNK):
                end = raw.rfind(b"\n") + 1
                if end:
                    lines, self._pending = self._pending + raw[:end], raw[end:]
                    return lines
                self._pending += raw
            elif len(self._files) > 1:
                self._files.popleft().close()
                if self._pending:
                    self._pending += b"\n"  # a line that a full disk cut short
            else:
                newer = self._log.open_after(self._files[0])
                if not newer:
                    return b""
                # What conmon wrote to this file before it opened the next one is read first.
                self._files.extend(newer)
        return b""


def _start_of_last(files: list[BinaryIO], count: int) -> tuple[int, int]:
    """Return the index of the file, and the offset in it, where the last `count` lines of output begin.

    A line of output in several parts counts once.
    """
    if not files:
        return 0, 0
    newest = len(files) - 1, _end(files[-1])
    if count <= 0:
        return newest
    start = newest
    for index, offset, line in _backwards(files):
        # This line ends the one before the line of output that is being counted.
        if start != newest and not is_part(line):
            count -= 1
            if count == 0:
                return start
        start = index, offset
    return start


def _backwards(files: list[BinaryIO]) -> Iterator[tuple[int, int, bytes]]:
    """Yield the whole lines of all files, the last first, each with the index of its file and its offset."""
    for index in reversed(range(len(files))):
        file, rest = files[index], b""
        at = _end(file)
        while at > 0:
            size = min(_CHUNK, at)
            at -= size
            file.seek(at)
            block = file.read(size) + rest
            # The first line may begin in the block before.
            cut = (block.find(b"\n") + 1 or len(block)) if at else 0
            rest, block = block[:cut], block[cut:]
            end = len(block)
            while end > 0:
                begin = block.rfind(b"\n", 0, end - 1) + 1
                yield index, at + cut + begin, block[begin:end]
                end = begin
        file.seek(0)


def _end(file: BinaryIO) -> int:
    """Return the offset behind the last whole line of a file."""
    at = file.seek(0, os.SEEK_END)
    while at > 0:
        size = min(_CHUNK, at)
        file.seek(at - size)
        if (found := file.read(size).rfind(b"\n")) >= 0:
            return at - size + found + 1
        at -= size
    return 0

"""Tells when files in a folder change (inotify(7)), with one descriptor for all folders: their number is limited."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

_IN_MODIFY, _IN_MOVED_TO, _IN_CREATE, _IN_IGNORED = 0x2, 0x80, 0x100, 0x8000
_HEAD = struct.Struct("iIII")
_BUFFER = 65536
_LIBC = ctypes.CDLL(None, use_errno=True)


class Changes:
    """The watched folders of a room, until `close`."""

    def __init__(self) -> None:
        self._descriptor = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise _error("inotify")
        self._events: defaultdict[int, set[asyncio.Event]] = defaultdict(set)
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def close(self) -> None:
        """Stop watching."""
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    @contextlib.contextmanager
    def of(self, folder: Path) -> Iterator[asyncio.Event]:
        """Yield an event that is set when a file in a folder is made, renamed or written. Raises `OSError`."""
        mask = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE
        watch = _LIBC.inotify_add_watch(self._descriptor, os.fsencode(folder), mask)
        if watch < 0:
            raise _error(str(folder))
        changed = asyncio.Event()
        self._events[watch].add(changed)
        try:
            yield changed
        finally:
            events = self._events.get(watch, set())
            events.discard(changed)
            # The kernel removes the watch of a deleted folder itself.
            if not events and self._events.pop(watch, None) is not None:
                _LIBC.inotify_rm_watch(self._descriptor, watch)

    def _read(self) -> None:
        data = os.read(self._descriptor, _BUFFER)
        at = 0
        while at < len(data):
            watch, mask, _, length = _HEAD.unpack_from(data, at)
            at += _HEAD.size + length
            # -1: the kernel's queue was full, so any file may have changed.
            for number in [*self._events] if watch == -1 else [watch]:
                for event in self._events.get(number, ()):
                    event.set()
            if mask & _IN_IGNORED:
                self._events.pop(watch, None)


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)

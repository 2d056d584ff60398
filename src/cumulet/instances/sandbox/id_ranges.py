"""Ranges of user and group ids, each held by one group of the machine.

Symbolic links in a folder of the machine record the holders: from the first id of a range to the data directory of the
installation. A range is free when its installation is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from cumulet.common.ascii import is_digits
from cumulet.common.config import Config
from cumulet.common.router import installation_id
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.sandbox.names import STATE

#: The number of ids of a group.
IDS = 65_536
#: Ids that Linux distributions and systemd do not use: above those of systemd's containers, below those that some
#: programs cannot parse (systemd, "Users, Groups, UIDs and GIDs on systemd Systems").
_FIRST, _END = 0x7000_0000, 0x7FFE_0000
_RANGES = (_END - _FIRST) // IDS
_HELD = STATE / "ids"
_SUBORDINATE = (Path("/etc/subuid"), Path("/etc/subgid"))


class IdRanges:
    """The ranges of this installation, named by their first ids."""

    def __init__(self, config: Config) -> None:
        self._owner = str(config.data_dir)
        self._next = int(installation_id(config), 16) % _RANGES
        self._held: set[int] = set()

    @property
    def first(self) -> int:
        """The first id of all ranges, for probes; it is not reserved."""
        return _FIRST

    def open(self, taken: Iterable[int]) -> None:
        """Reserve the ranges of existing groups."""
        with _lock():
            for start in taken:
                if self._take(start):
                    self._held.add(start)

    def allocate(self, before: int) -> int:
        """Reserve a range, if possible `before`; return its first id. Raises `SandboxError` when none is free."""
        subordinate = [*_subordinate()]
        first = self._next
        candidates = (_FIRST + (first + step) % _RANGES * IDS for step in range(_RANGES))
        with _lock():
            for start in itertools.chain([before] if before else [], candidates):
                if start in self._held:
                    continue
                if any(begin < start + IDS and start < end for begin, end in subordinate):
                    continue
                if self._take(start):
                    self._held.add(start)
                    if start != before:
                        self._next = (start - _FIRST) // IDS + 1
                    return start
        raise SandboxError("no range of user ids is left on this machine")

    def release(self, start: int) -> None:
        """Release a range."""
        if start in self._held:
            self._held.discard(start)
            _link(start).unlink(missing_ok=True)

    def _take(self, start: int) -> bool:
        """Reserve a range if it is free; return whether this installation holds it. The caller has the lock."""
        link = _link(start)
        holder = _holder(link)
        if holder is not None and holder != self._owner and Path(holder).exists():
            return False
        if holder != self._owner:
            link.unlink(missing_ok=True)
            link.symlink_to(self._owner)
        return True


def release_all(config: Config) -> None:
    """Release all ranges of an installation whose groups are gone."""
    if not _HELD.is_dir():
        return
    with _lock():
        for link in _HELD.iterdir():
            if _holder(link) == str(config.data_dir):
                link.unlink()
        with contextlib.suppress(OSError):  # another installation holds ranges
            _HELD.rmdir()


def _link(start: int) -> Path:
    return _HELD / str(start)


def _holder(link: Path) -> str | None:
    try:
        return str(link.readlink())
    except OSError:
        return None


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """Exclude other installations."""
    while True:
        _HELD.mkdir(mode=0o711, parents=True, exist_ok=True)
        descriptor = os.open(_HELD, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # The previous holder of the lock may have removed the folder.
            if _HELD.exists() and os.path.samestat(os.fstat(descriptor), _HELD.stat()):
                yield
                return
        finally:
            os.close(descriptor)


def _subordinate() -> Iterator[tuple[int, int]]:
    """Yield the ranges of subuid(5) and subgid(5): the first id, and the one after the last."""
    for file in _SUBORDINATE:
        try:
            lines = file.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            fields = line.split(":")
            if len(fields) == 3 and is_digits(fields[1]) and is_digits(fields[2]):
                yield int(fields[1]), int(fields[1]) + int(fields[2])

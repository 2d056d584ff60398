"""The files of one attempt's log: the one that conmon writes, and older ones with growing numbers in their names.

A rotation renames the written file, and then lets conmon open a new one (conmon's control pipe, message 2). Until conmon does,
it writes to the renamed file, so no line is lost.
"""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import BinaryIO

from cumulet.common.ascii import is_digits

#: The message to conmon to open its log again.
_REOPEN = b"2 0 0\n"
#: Names do not change while files are listed and opened.
_ORDER = threading.Lock()


class LogFiles:
    """The files of the log whose written file has that path. They may change while they are read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self) -> bool:
        """Return whether there is a log."""
        return bool(self._files())

    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(_size(path) or 0 for path in self._files())

    def open_all(self) -> list[BinaryIO]:
        """Open the existing files, the oldest first."""
        with _ORDER:
            return [path.open("rb") for path in self._files()]

    def open_after(self, file: BinaryIO) -> list[BinaryIO]:
        """Open the files that are newer than an open one, the oldest first."""
        own = os.fstat(file.fileno()).st_ino
        with _ORDER:
            opened: list[BinaryIO] = [path.open("rb") for path in self._files()]
        numbers = [os.fstat(item.fileno()).st_ino for item in opened]
        # Only the oldest are deleted, so all are newer than a deleted one.
        newer = numbers.index(own) + 1 if own in numbers else 0
        for item in opened[:newer]:
            item.close()
        return opened[newer:]

    def rotate(self, control: Path, *, max_size: int, max_files: int) -> None:
        """Start a new file if the written one has `max_size` bytes, and delete the oldest of more than `max_files`.

        `control` is conmon's control pipe. If no conmon reads it, nothing is written any more. Raises `OSError`.
        """
        size = _size(self.path)
        # A renamed log without a new one: conmon has not got the message.
        if (size < max_size) if size is not None else not self._rotated():
            return
        try:
            pipe = os.open(control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENOENT):
                return
            raise
        try:
            if size is not None:
                with _ORDER:
                    rotated = self._rotated()
                    number = rotated[-1][0] + 1 if rotated else 1
                    for _, path in rotated[: max(len(rotated) + 2 - max_files, 0)]:
                        path.unlink(missing_ok=True)
                    self.path.rename(self._numbered(number))
            os.write(pipe, _REOPEN)
        finally:
            os.close(pipe)

    def remove(self) -> None:
        """Delete all files."""
        with _ORDER:
            for path in self._files():
                path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        """Return the existing files, the oldest first."""
        written = [self.path] if self.path.exists() else []
        return [*(path for _, path in self._rotated()), *written]

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _rotated(self) -> list[tuple[int, Path]]:
        prefix = f"{self.path.name}."
        try:
            names = [item.name for item in self.path.parent.iterdir()]
        except FileNotFoundError:
            return []
        numbers = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        return [
            (number, self._numbered(number)) for number in sorted(int(text) for text in numbers if is_digits(text))
        ]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None

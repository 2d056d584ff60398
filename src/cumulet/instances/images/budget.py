"""The limits of all layers of an image together."""

from __future__ import annotations

import threading

from cumulet.instances.images.errors import Fault

#: Files and folders of an image, and steps of the paths to them.
_FILES = 500_000
_STEPS = 10_000_000


class LayerError(Exception):
    """The layer is not valid, exceeds a limit, or has a format that is not supported."""

    def __init__(self, message: str, fault: Fault = Fault.INVALID) -> None:
        super().__init__(message)
        self.fault = fault


class Budget:
    """Counts what an image uses, from all threads that unpack its layers. The methods raise `LayerError` above a limit."""

    def __init__(self, limit: int, files: int = _FILES) -> None:
        self._lock = threading.Lock()
        self._limit = limit
        self._most_files = files
        self._bytes = self._files = self._steps = 0

    def add_bytes(self, count: int) -> None:
        """Count unpacked bytes."""
        with self._lock:
            self._bytes += count
        if self._bytes > self._limit:
            raise LayerError(f"the image unpacks to more than {self._limit} bytes", Fault.LIMIT)

    def add_file(self) -> None:
        """Count a file or folder."""
        with self._lock:
            self._files += 1
        if self._files > self._most_files:
            raise LayerError(f"the image has more than {self._most_files} files and folders", Fault.LIMIT)

    def add_steps(self, count: int) -> None:
        """Count the steps of a path."""
        with self._lock:
            self._steps += count
        if self._steps > _STEPS:
            raise LayerError(f"the paths of the image have more than {_STEPS} steps", Fault.LIMIT)

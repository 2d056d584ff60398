"""The folders of a container group. They are named by numbers, never by text from a request."""

from __future__ import annotations

import logging
from pathlib import Path

from cumulet.instances.sandbox.programs import run

log = logging.getLogger(__name__)


class Folders:
    """The folders of one group. `folder` is its own; `before` is the one of earlier versions, which used names."""

    def __init__(self, folder: Path, before: Path) -> None:
        self.folder = folder
        self.before = before

    def attempt(self, number: int, attempt: int) -> Path:
        """Return the folder of an attempt of the container with that number."""
        return self._container(number) / str(attempt)

    def log(self, number: int, attempt: int) -> Path:
        """Return the path of the log of that attempt."""
        return self._container(number) / f"{attempt}.log"

    def attempt_before(self, name: str, attempt: int) -> Path:
        """Return the folder of an attempt that an earlier version made."""
        return self.before / name / str(attempt)

    def log_before(self, name: str, attempt: int) -> Path:
        """Return the path of the log of that attempt."""
        return self.before / name / f"{attempt}.log"

    @property
    def containers(self) -> Path:
        """The folder of the folders and logs of all containers."""
        return self.folder / "containers"

    @property
    def volumes(self) -> Path:
        """The folder of all volumes."""
        return self.folder / "volumes"

    @property
    def layers(self) -> Path:
        """The folder of the group's own copies of layers, where the kernel cannot map owners."""
        return self.folder / "layers"

    @property
    def files(self) -> Path:
        """The folder of the files that all containers share."""
        return self.folder / "files"

    @property
    def pause(self) -> Path:
        """The folder of the container that holds the processes which the containers share."""
        return self.folder / "pause"

    def _container(self, number: int) -> Path:
        return self.containers / str(number)


async def remove_tree(folder: Path) -> None:
    """Remove a folder and its content at any depth: a container can nest folders deeper than a recursion can follow."""
    done = await run("rm", "--recursive", "--force", "--one-file-system", "--", folder)
    if done.code:
        log.error("%s is not removed: %s", folder, done.reason[:1000])

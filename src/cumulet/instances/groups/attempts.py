"""The attempts to run the containers of a group: an attempt is one start of a container.

Each has a number, a folder (the runtime's bundle), a log, a root, and an id of its own at the runtime.
"""

from __future__ import annotations

from pathlib import Path

from cumulet.instances.groups.folders import Folders
from cumulet.instances.model.properties import Container
from cumulet.instances.sandbox.user_namespaces import UserNamespaces
from cumulet.instances.store.records import ContainerStatus, GroupRecord
from cumulet.instances.streams.log_files import LogFiles

#: Characters of a group's uid in the ids of its containers; groups that exist at the same time differ in them.
UID_PART = 13


class Attempts:
    """The newest attempt of each container of a group."""

    def __init__(self, record: GroupRecord, folders: Folders, users: UserNamespaces, installation: str) -> None:
        self._record = record
        self._folders = folders
        self._users = users
        self._installation = installation

    def containers(self) -> list[Container]:
        """Return all containers, each at its number."""
        return self._record.properties.numbered_containers

    def has(self, name: str) -> bool:
        """Return whether the group has a container of that name."""
        return any(container.name == name for container in self.containers())

    def container(self, name: str) -> Container:
        """Return a container as the newest properties of the group define it."""
        return self.containers()[self._number(name)]

    def status(self, name: str) -> ContainerStatus:
        """Return the status of a container, which may be changed in place."""
        return self._record.status.containers.setdefault(name, ContainerStatus())

    def cid(self, name: str) -> str:
        """Return the runtime's id of the newest attempt."""
        status = self.status(name)
        mark = str(self._number(name)) if status.numbered else name
        return f"{self._installation}-{self._record.uid[:UID_PART]}-{mark}-{status.attempt}"

    def bundle(self, name: str) -> Path:
        """Return the folder of the newest attempt."""
        status = self.status(name)
        if not status.numbered:
            return self._folders.attempt_before(name, status.attempt)
        return self._folders.attempt(self._number(name), status.attempt)

    def root(self, name: str) -> Path:
        """Return the path where the root of the newest attempt is mounted."""
        if not self._record.status.ids:
            return self.bundle(name) / "rootfs"
        container = f"{name}-{self.status(name).attempt}"
        return self._users.root(self._record.uid, self._record.status.ids, container)

    def log(self, name: str, *, previous: bool = False) -> Path:
        """Return the path of the log of the newest attempt, or of the one before."""
        return self._log(name, self.status(name).attempt - previous)

    def readable_log(self, name: str, *, previous: bool = False) -> LogFiles:
        """Return the log that users see: of the newest attempt, or of the one that ended before it.

        While a container waits for its next attempt, both are the log of the attempt that ended.
        """
        if self.status(name).current_state.state == "Waiting":
            previous = not LogFiles(self.log(name)).exists()
        return LogFiles(self.log(name, previous=previous))

    def _log(self, name: str, attempt: int) -> Path:
        if not self.status(name).numbered:
            return self._folders.log_before(name, attempt)
        return self._folders.log(self._number(name), attempt)

    def keep_log(self, name: str) -> None:
        """Move the log of an attempt that an earlier version made to the folder of this version."""
        status = self.status(name)
        if not status.numbered and self.log(name).exists():
            kept = self._folders.log(self._number(name), status.attempt)
            kept.parent.mkdir(parents=True, exist_ok=True)
            self.log(name).rename(kept)

    def _number(self, name: str) -> int:
        return next(number for number, container in enumerate(self.containers()) if container.name == name)

"""Resource groups, the index of their resources, and the deletions of groups, in one SQLite file."""

from __future__ import annotations

import sqlite3
import uuid
from pathlib import Path
from typing import NamedTuple

import msgspec

from cumulet.common import clock
from cumulet.common.arm import ArmError, ErrorResponse, ResourceId
from cumulet.common.ascii import fold
from cumulet.common.database import Database

_MIGRATIONS = [
    """
    CREATE TABLE resource_group (
        key TEXT PRIMARY KEY, name TEXT NOT NULL, location TEXT NOT NULL, tags BLOB NOT NULL, state TEXT NOT NULL
    );
    CREATE TABLE resource (
        key TEXT PRIMARY KEY,
        resource_group TEXT NOT NULL REFERENCES resource_group (key) ON DELETE CASCADE,
        id TEXT NOT NULL, type TEXT NOT NULL, name TEXT NOT NULL, location TEXT NOT NULL, tags BLOB NOT NULL
    );
    CREATE INDEX resource_of_group ON resource (resource_group);
    """,
    """
    ALTER TABLE resource ADD COLUMN promised INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE deletion (
        id TEXT PRIMARY KEY, resource_group TEXT NOT NULL, started TEXT NOT NULL, status TEXT NOT NULL, error BLOB
    );
    CREATE INDEX deletion_of_group ON deletion (resource_group);
    """,
]

#: The number of ended deletions that are stored, for clients that still poll them.
_ENDED = 1000


class Group(msgspec.Struct, frozen=True):
    """A resource group; `state` is its provisioning state, Succeeded or Deleting."""

    name: str
    location: str
    tags: dict[str, str]
    state: str


class Tracked(msgspec.Struct, frozen=True):
    """A resource of a provider, with the properties that generic lists show."""

    id: str
    type: str
    name: str
    location: str
    tags: dict[str, str]


class Deletion(msgspec.Struct, frozen=True):
    """The deletion of a resource group; `status` is InProgress, Succeeded or Failed."""

    id: str
    group: str
    status: str
    error: ErrorResponse | None


class _GroupRow(NamedTuple):
    name: str
    location: str
    tags: bytes | str
    state: str


class _ResourceRow(NamedTuple):
    id: str
    type: str
    name: str
    location: str
    tags: bytes | str


class _DeletionRow(NamedTuple):
    id: str
    group: str
    status: str
    error: bytes | None


class Index:
    """The index of resources and their groups. Names are compared without case, as Azure does."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _MIGRATIONS)

    def open(self) -> None:
        """Open the file."""
        self._database.open()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    # Resource groups.

    def groups(self) -> list[Group]:
        """Return every resource group."""
        sql = "SELECT name, location, tags, state FROM resource_group ORDER BY key"
        return [_group(_GroupRow(*row)) for row in self._database.read(sql)]

    def group(self, name: str) -> Group | None:
        """Return a resource group, or `None`."""
        sql = "SELECT name, location, tags, state FROM resource_group WHERE key = ?"
        rows = self._database.read(sql, (fold(name),))
        return _group(_GroupRow(*rows[0])) if rows else None

    def demand_open(self, name: str) -> None:
        """Raises `ArmError` if a resource group does not exist or is being deleted."""
        group = self.group(name)
        if group is None:
            raise no_group(name)
        if group.state == "Deleting":
            raise being_deleted(name)

    async def put_group(self, group: Group) -> None:
        """Add a resource group, or change its tags and keep its resources.

        Raises `ArmError` 409 while the group is being deleted.
        """

        def job(connection: sqlite3.Connection) -> None:
            changed = connection.execute(
                """
                INSERT INTO resource_group VALUES (?, ?, ?, ?, ?)
                ON CONFLICT (key) DO UPDATE SET tags = excluded.tags WHERE state != 'Deleting'
                """,
                (fold(group.name), group.name, group.location, msgspec.json.encode(group.tags), group.state),
            )
            if not changed.rowcount:
                raise being_deleted(group.name)

        await self._database.write(job)

    # Resources.

    def resources(self, group: str | None = None) -> list[Tracked]:
        """Return the resources of a resource group, or of all groups."""
        return [_tracked(row) for row in self._rows("promised = 0", group)]

    def everything_in(self, group: str) -> list[str]:
        """Return the ids of all resources of a resource group, also of expected ones that a provider may have created."""
        return [row.id for row in self._rows("1", group)]

    def has(self, resource: ResourceId) -> bool:
        """Return whether a resource exists or is expected."""
        return bool(self._database.read("SELECT 1 FROM resource WHERE key = ?", (_key(resource),)))

    async def expect(self, resource: ResourceId) -> None:
        """Record a resource before its provider is called, so that the index has it after a crash.

        Raises `ArmError` if its group does not exist or is being deleted.
        """
        assert resource.resource_group is not None
        group = resource.resource_group

        def job(connection: sqlite3.Connection) -> None:
            row = connection.execute("SELECT state FROM resource_group WHERE key = ?", (fold(group),)).fetchone()
            if row is None:
                raise no_group(group)
            if row[0] == "Deleting":
                raise being_deleted(group)
            connection.execute(
                "INSERT OR IGNORE INTO resource VALUES (?, ?, ?, ?, ?, '', '{}', 1)",
                (_key(resource), fold(group), str(resource), resource.type, resource.name),
            )

        await self._database.write(job)

    async def cancel_expected(self, resource: ResourceId) -> None:
        """Remove the record of an expected resource, which its provider refused. An existing resource stays."""
        await self._database.execute("DELETE FROM resource WHERE key = ? AND promised", (_key(resource),))

    async def track(self, resource: ResourceId, location: str, tags: dict[str, str]) -> None:
        """Record that a resource exists."""
        await self._database.execute(
            "UPDATE resource SET location = ?, tags = ?, promised = 0 WHERE key = ?",
            (location, msgspec.json.encode(tags), _key(resource)),
        )

    async def untrack(self, resource: ResourceId) -> None:
        """Remove a resource."""
        await self._database.execute("DELETE FROM resource WHERE key = ?", (_key(resource),))

    # Deletions of groups.

    async def start_deletion(self, group: str) -> Deletion:
        """Close a resource group to writes, and return its deletion, which may have been started before."""

        def job(connection: sqlite3.Connection) -> Deletion:
            key = fold(group)
            connection.execute("UPDATE resource_group SET state = 'Deleting' WHERE key = ?", (key,))
            running = connection.execute(
                "SELECT id FROM deletion WHERE resource_group = ? AND status = 'InProgress'", (key,)
            ).fetchone()
            if running is not None:
                return Deletion(running[0], group, "InProgress", None)
            connection.execute(
                "DELETE FROM deletion WHERE status != 'InProgress' AND id NOT IN "
                "(SELECT id FROM deletion ORDER BY started DESC LIMIT ?)",
                (_ENDED,),
            )
            deletion = Deletion(str(uuid.uuid4()), group, "InProgress", None)
            connection.execute(
                "INSERT INTO deletion VALUES (?, ?, ?, 'InProgress', NULL)", (deletion.id, key, clock.rfc3339_micro())
            )
            return deletion

        return await self._database.write(job)

    async def end_deletion(self, deletion: Deletion, error: ErrorResponse | None = None) -> None:
        """Remove the group, or open it to writes again if its deletion failed with `error`."""

        def job(connection: sqlite3.Connection) -> None:
            key = fold(deletion.group)
            if error is None:
                connection.execute("DELETE FROM resource_group WHERE key = ?", (key,))
            else:
                connection.execute("UPDATE resource_group SET state = 'Succeeded' WHERE key = ?", (key,))
            connection.execute(
                "UPDATE deletion SET status = ?, error = ? WHERE id = ?",
                ("Failed" if error else "Succeeded", msgspec.json.encode(error) if error else None, deletion.id),
            )

        await self._database.write(job)

    def deletion(self, deletion_id: str) -> Deletion | None:
        """Return a deletion, or `None`."""
        sql = "SELECT id, resource_group, status, error FROM deletion WHERE id = ?"
        rows = self._database.read(sql, (deletion_id,))
        return _deletion(_DeletionRow(*rows[0])) if rows else None

    def running_deletions(self) -> list[Deletion]:
        """Return the deletions that have not ended, which a start of the room resumes."""
        sql = "SELECT id, resource_group, status, error FROM deletion WHERE status = 'InProgress'"
        return [_deletion(_DeletionRow(*row)) for row in self._database.read(sql)]

    def _rows(self, condition: str, group: str | None) -> list[_ResourceRow]:
        sql = f"SELECT id, type, name, location, tags FROM resource WHERE {condition}"  # noqa: S608
        if group is None:
            rows = self._database.read(f"{sql} ORDER BY key")
        else:
            rows = self._database.read(f"{sql} AND resource_group = ? ORDER BY key", (fold(group),))
        return [_ResourceRow(*row) for row in rows]


def no_group(name: str) -> ArmError:
    """Return the error 404 `ResourceGroupNotFound`."""
    return ArmError(404, "ResourceGroupNotFound", f"Resource group '{name}' could not be found.")


def being_deleted(name: str) -> ArmError:
    """Return the error 409 `ResourceGroupBeingDeleted`."""
    return ArmError(
        409,
        "ResourceGroupBeingDeleted",
        f"The resource group '{name}' is in deprovisioning state and cannot perform this operation.",
    )


def _key(resource: ResourceId) -> str:
    return fold(str(resource))


def _group(row: _GroupRow) -> Group:
    return Group(row.name, row.location, _tags(row.tags), row.state)


def _tracked(row: _ResourceRow) -> Tracked:
    return Tracked(row.id, row.type, row.name, row.location, _tags(row.tags))


def _tags(stored: bytes | str) -> dict[str, str]:
    return msgspec.json.decode(stored, type=dict[str, str])


def _deletion(row: _DeletionRow) -> Deletion:
    error = msgspec.json.decode(row.error, type=ErrorResponse) if row.error else None
    return Deletion(row.id, row.group, row.status, error)

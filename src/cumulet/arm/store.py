"""Resource groups, the index of what is in them, and the deletions that are under way, in one SQL file."""

from __future__ import annotations

import sqlite3
import uuid
from pathlib import Path
from typing import Any

import msgspec

from cumulet.common import clock
from cumulet.common.arm import ArmError, ResourceId
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

#: How many deletions that have ended are remembered for those who ask late.
_ENDED = 1000


class Group(msgspec.Struct, frozen=True):
    """A resource group; `state` is its provisioning state, Succeeded or Deleting."""

    name: str
    location: str
    tags: dict[str, str]
    state: str


class Tracked(msgspec.Struct, frozen=True):
    """A resource that a provider has, as generic lists show it."""

    id: str
    type: str
    name: str
    location: str
    tags: dict[str, str]


class Deletion(msgspec.Struct, frozen=True):
    """The deletion of a resource group; `status` is InProgress, Succeeded or Failed, `error` ARM's error body."""

    id: str
    group: str
    status: str
    error: dict[str, Any] | None


class Index:
    """Names are compared without case, as Azure does."""

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
        """Every resource group."""
        return [
            _group(row)
            for row in self._database.read("SELECT name, location, tags, state FROM resource_group ORDER BY key")
        ]

    def group(self, name: str) -> Group | None:
        """A resource group, or `None`."""
        rows = self._database.read(
            "SELECT name, location, tags, state FROM resource_group WHERE key = ?", (fold(name),)
        )
        return _group(rows[0]) if rows else None

    def demand_open(self, name: str) -> None:
        """Raises `ArmError` where a resource group is not there, or is being deleted."""
        group = self.group(name)
        if group is None:
            raise no_group(name)
        if group.state == "Deleting":
            raise being_deleted(name)

    async def put_group(self, group: Group) -> None:
        """Add a resource group, or change its tags, leaving what is in it.

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

    # What is in them.

    def resources(self, group: str | None = None) -> list[Tracked]:
        """What is in a resource group, or everywhere."""
        return [_tracked(row) for row in self._rows("promised = 0", group)]

    def everything_in(self, group: str) -> list[str]:
        """The ids of what is in a resource group, and of what a provider may have made without our knowing."""
        return [row[0] for row in self._rows("1", group)]

    def has(self, resource: ResourceId) -> bool:
        """Whether a resource is known, or promised."""
        return bool(self._database.read("SELECT 1 FROM resource WHERE key = ?", (_key(resource),)))

    async def promise(self, resource: ResourceId) -> None:
        """Note that a provider is about to be asked for a resource, so that no crash makes us forget it.

        Raises `ArmError` where its group is not there, or is being deleted.
        """
        assert resource.resource_group is not None
        group = resource.resource_group

        def job(connection: sqlite3.Connection) -> None:
            found = connection.execute("SELECT state FROM resource_group WHERE key = ?", (fold(group),)).fetchone()
            if found is None:
                raise no_group(group)
            if found[0] == "Deleting":
                raise being_deleted(group)
            connection.execute(
                "INSERT OR IGNORE INTO resource VALUES (?, ?, ?, ?, ?, '', '{}', 1)",
                (_key(resource), fold(group), str(resource), resource.type, resource.name),
            )

        await self._database.write(job)

    async def break_promise(self, resource: ResourceId) -> None:
        """The provider refused."""
        await self._database.execute("DELETE FROM resource WHERE key = ? AND promised", (_key(resource),))

    async def track(self, resource: ResourceId, location: str, tags: dict[str, str]) -> None:
        """Note that a resource exists."""
        await self._database.execute(
            "UPDATE resource SET location = ?, tags = ?, promised = 0 WHERE key = ?",
            (location, msgspec.json.encode(tags), _key(resource)),
        )

    async def untrack(self, resource: ResourceId) -> None:
        """Note that a resource is gone."""
        await self._database.execute("DELETE FROM resource WHERE key = ?", (_key(resource),))

    # Deletions of whole groups.

    async def start_deletion(self, group: str) -> Deletion:
        """Close a resource group for writing; the deletion, which may be one that was started before."""

        def job(connection: sqlite3.Connection) -> Deletion:
            key = fold(group)
            connection.execute("UPDATE resource_group SET state = 'Deleting' WHERE key = ?", (key,))
            under_way = connection.execute(
                "SELECT id FROM deletion WHERE resource_group = ? AND status = 'InProgress'", (key,)
            ).fetchone()
            if under_way is not None:
                return Deletion(under_way[0], group, "InProgress", None)
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

    async def end_deletion(self, deletion: Deletion, error: dict[str, Any] | None = None) -> None:
        """Remove the group with its deletion done, or open it again where that failed."""

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
        """A deletion, or `None`."""
        rows = self._database.read(
            "SELECT id, resource_group, status, error FROM deletion WHERE id = ?", (deletion_id,)
        )
        return _deletion(rows[0]) if rows else None

    def deletions_under_way(self) -> list[Deletion]:
        """What is to be gone on with after a stop."""
        sql = "SELECT id, resource_group, status, error FROM deletion WHERE status = 'InProgress'"
        return [_deletion(row) for row in self._database.read(sql)]

    def _rows(self, condition: str, group: str | None) -> list[Any]:
        sql = f"SELECT id, type, name, location, tags FROM resource WHERE {condition}"  # noqa: S608
        if group is None:
            return self._database.read(f"{sql} ORDER BY key")
        return self._database.read(f"{sql} AND resource_group = ? ORDER BY key", (fold(group),))


def no_group(name: str) -> ArmError:
    """404 `ResourceGroupNotFound`."""
    return ArmError(404, "ResourceGroupNotFound", f"Resource group '{name}' could not be found.")


def being_deleted(name: str) -> ArmError:
    """409 `ResourceGroupBeingDeleted`."""
    return ArmError(
        409,
        "ResourceGroupBeingDeleted",
        f"The resource group '{name}' is in deprovisioning state and cannot perform this operation.",
    )


def _key(resource: ResourceId) -> str:
    return fold(str(resource))


def _group(row: Any) -> Group:
    name, location, tags, state = row
    return Group(name, location, msgspec.json.decode(tags), state)


def _tracked(row: Any) -> Tracked:
    resource_id, kind, name, location, tags = row
    return Tracked(resource_id, kind, name, location, msgspec.json.decode(tags))


def _deletion(row: Any) -> Deletion:
    deletion_id, group, status, error = row
    return Deletion(deletion_id, group, status, msgspec.json.decode(error) if error else None)

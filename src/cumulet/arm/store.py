"""Resource groups and the index of what is in them, in one SQL file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from cumulet.common.arm import ResourceId
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
    """
]


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

    def groups(self) -> list[Group]:
        """Every resource group."""
        return [
            _group(row)
            for row in self._database.read("SELECT name, location, tags, state FROM resource_group ORDER BY key")
        ]

    def group(self, name: str) -> Group | None:
        """A resource group, or `None`."""
        rows = self._database.read(
            "SELECT name, location, tags, state FROM resource_group WHERE key = ?", (name.lower(),)
        )
        return _group(rows[0]) if rows else None

    async def put_group(self, group: Group) -> None:
        """Add or change a resource group, leaving what is in it."""
        await self._database.execute(
            """
            INSERT INTO resource_group VALUES (?, ?, ?, ?, ?)
            ON CONFLICT (key) DO UPDATE SET tags = excluded.tags, state = excluded.state
            """,
            (group.name.lower(), group.name, group.location, msgspec.json.encode(group.tags), group.state),
        )

    async def remove_group(self, name: str) -> None:
        """Remove a resource group from the index with all that it held."""
        await self._database.execute("DELETE FROM resource_group WHERE key = ?", (name.lower(),))

    def resources(self, group: str | None = None) -> list[Tracked]:
        """What is in a resource group, or everywhere."""
        sql = "SELECT id, type, name, location, tags FROM resource"
        rows = self._database.read(
            *(
                (f"{sql} WHERE resource_group = ? ORDER BY key", (group.lower(),))
                if group
                else (f"{sql} ORDER BY key", ())
            )
        )
        return [Tracked(row[0], row[1], row[2], row[3], msgspec.json.decode(row[4])) for row in rows]

    async def track(self, resource: ResourceId, location: str, tags: dict[str, str]) -> None:
        """Note that a resource exists."""
        assert resource.resource_group is not None
        await self._database.execute(
            "INSERT OR REPLACE INTO resource VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                str(resource).lower(),
                resource.resource_group.lower(),
                str(resource),
                resource.type,
                resource.name,
                location,
                msgspec.json.encode(tags),
            ),
        )

    async def untrack(self, resource: ResourceId) -> None:
        """Note that a resource is gone."""
        await self._database.execute("DELETE FROM resource WHERE key = ?", (str(resource).lower(),))


def _group(row: Any) -> Group:
    name, location, tags, state = row
    return Group(name, location, msgspec.json.decode(tags), state)

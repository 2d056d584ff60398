"""The child resources of a registry, such as tokens, scope maps and webhooks, stored by name."""

from __future__ import annotations

from typing import ClassVar, Protocol, TypeVar

import msgspec

from cumulet.common.database import Database

#: Resources are deleted with their registry.
SCHEMA = """
    CREATE TABLE resource (
        registry TEXT NOT NULL REFERENCES registry (key) ON DELETE CASCADE,
        segment TEXT NOT NULL, name TEXT NOT NULL COLLATE NOCASE, body BLOB NOT NULL,
        PRIMARY KEY (registry, segment, name)
    ) WITHOUT ROWID;
    """


class Resource(Protocol):
    """A struct with a name. `segment` is the last segment of its ARM type, such as `tokens`."""

    segment: ClassVar[str]

    @property
    def name(self) -> str: ...


R = TypeVar("R", bound=Resource)


class Resources:
    """The store. Reads are indexed queries. Writes are durable when they return. Names are compared without case."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, registry: str, kind: type[R], name: str) -> R | None:
        """A resource of a kind by its name, or `None`."""
        rows = self._database.read(
            "SELECT body FROM resource WHERE registry = ? AND segment = ? AND name = ?",
            (registry, kind.segment, name),
        )
        return msgspec.json.decode(rows[0][0], type=kind) if rows else None

    def list(self, registry: str, kind: type[R]) -> list[R]:
        """All resources of a kind, ordered by name."""
        rows = self._database.read(
            "SELECT body FROM resource WHERE registry = ? AND segment = ? ORDER BY name", (registry, kind.segment)
        )
        return [msgspec.json.decode(body, type=kind) for (body,) in rows]

    async def put(self, registry: str, resource: Resource) -> None:
        """Add or replace a resource."""
        await self._database.execute(
            "INSERT INTO resource VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET body = excluded.body",
            (registry, resource.segment, resource.name, msgspec.json.encode(resource)),
        )

    async def remove(self, registry: str, kind: type[Resource], name: str) -> bool:
        """Remove a resource and return whether it existed."""
        changed = await self._database.execute(
            "DELETE FROM resource WHERE registry = ? AND segment = ? AND name = ?", (registry, kind.segment, name)
        )
        return bool(changed)

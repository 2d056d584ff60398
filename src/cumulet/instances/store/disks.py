"""The managed disks, on disk."""

from __future__ import annotations

import uuid
from typing import NamedTuple

import msgspec

from cumulet.common.database import Database

_COLUMNS = "uid, key, id, location, tags, sku, gigabytes, created"


class DiskRecord(NamedTuple):
    """A managed disk: `uid` names its folder, `key` is its id without case; sizes are GiB, `created` is RFC 3339."""

    uid: uuid.UUID
    key: str
    id: str
    location: str
    tags: dict[str, str]
    sku: str
    gigabytes: int
    created: str


class DiskStore:
    """Reads all disks once at the start; a change is durable when its method returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[DiskRecord]:
        """Return all disks."""
        rows = self._database.read(f"SELECT {_COLUMNS} FROM disk")  # noqa: S608  (fixed text)
        return [
            DiskRecord(uuid.UUID(uid), key, id_, location, msgspec.json.decode(tags), sku, gigabytes, created)
            for uid, key, id_, location, tags, sku, gigabytes, created in rows
        ]

    async def put(self, disk: DiskRecord) -> None:
        """Add or replace a disk."""
        values = (str(disk.uid), *disk[1:4], msgspec.json.encode(disk.tags), *disk[5:])
        await self._database.execute(
            f"INSERT OR REPLACE INTO disk ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            values,
        )

    async def remove(self, uid: uuid.UUID) -> None:
        """Delete a disk."""
        await self._database.execute("DELETE FROM disk WHERE uid = ?", (str(uid),))

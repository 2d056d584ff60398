"""The database of container groups. Properties are encrypted, because they contain passwords."""

from __future__ import annotations

from pathlib import Path

import msgspec
from cryptography.fernet import Fernet

from cumulet.common.config import write_private
from cumulet.common.database import Database
from cumulet.instances.store.records import GroupRecord, GroupStatus
from cumulet.instances.store.restoring import restore

_MIGRATIONS = [
    """
    CREATE TABLE container_group (
        uid TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, id TEXT NOT NULL,
        location TEXT NOT NULL, tags BLOB NOT NULL, properties BLOB NOT NULL, status BLOB NOT NULL
    );
    CREATE TABLE usage (
        uid TEXT PRIMARY KEY, name TEXT NOT NULL, resource_group TEXT NOT NULL, tags BLOB NOT NULL,
        vcpu REAL NOT NULL, gb REAL NOT NULL, spot INTEGER NOT NULL,
        started TEXT NOT NULL, heard TEXT NOT NULL, stopped TEXT
    );
    """
]


class Store:
    """Reads all groups once at the start. A change is durable when its method returns."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(folder / "instances.db", _MIGRATIONS)
        key_file = folder / "seal.key"
        if not key_file.exists():
            write_private(key_file, Fernet.generate_key())
        self._seal = Fernet(key_file.read_bytes())

    def open(self) -> None:
        """Open the database."""
        self.database.open()

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def groups(self) -> list[GroupRecord]:
        """Return all groups."""
        records = []
        for uid, key, id_, location, tags, sealed, status in self.database.read("SELECT * FROM container_group"):
            properties, flaw = restore(id_.rsplit("/", 1)[-1], msgspec.json.decode(self._seal.decrypt(sealed)))
            decoded = msgspec.json.decode(status, type=GroupStatus)
            records.append(GroupRecord(uid, key, id_, location, msgspec.json.decode(tags), properties, decoded, flaw))
        return records

    async def put(self, group: GroupRecord) -> None:
        """Add or replace a group."""
        values = (
            group.uid,
            group.key,
            group.id,
            group.location,
            msgspec.json.encode(group.tags),
            self._seal.encrypt(msgspec.json.encode(group.properties)),
            msgspec.json.encode(group.status),
        )
        await self.database.execute("INSERT OR REPLACE INTO container_group VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    async def put_status(self, group: GroupRecord) -> None:
        """Write the status of a group."""
        await self.database.execute(
            "UPDATE container_group SET status = ? WHERE uid = ?", (msgspec.json.encode(group.status), group.uid)
        )

    async def remove(self, uid: str) -> None:
        """Delete a group; its usage record stays."""
        await self.database.execute("DELETE FROM container_group WHERE uid = ?", (uid,))

"""The database of container groups. Properties are encrypted, because they contain passwords."""

from __future__ import annotations

from pathlib import Path

import msgspec
from cryptography.fernet import Fernet

from cumulet.common.database import Database
from cumulet.common.private_files import write_private
from cumulet.instances.model.envelope import Envelope
from cumulet.instances.model.properties import GroupProperties
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
    """,
    """
    ALTER TABLE container_group ADD COLUMN next BLOB;
    ALTER TABLE container_group ADD COLUMN envelope BLOB NOT NULL DEFAULT x'7b7d';
    ALTER TABLE usage RENAME TO usage_before;
    CREATE TABLE usage (
        uid TEXT NOT NULL, name TEXT NOT NULL, resource_group TEXT NOT NULL, tags BLOB NOT NULL, labels BLOB NOT NULL,
        vcpu REAL NOT NULL, gb REAL NOT NULL, spot INTEGER NOT NULL,
        started TEXT NOT NULL, heard TEXT NOT NULL, stopped TEXT, PRIMARY KEY (uid, started)
    );
    INSERT INTO usage SELECT uid, name, resource_group, tags, x'7b7d', vcpu, gb, spot, started, heard, stopped FROM usage_before;
    DROP TABLE usage_before;
    CREATE INDEX usage_started ON usage (started);
    CREATE UNIQUE INDEX usage_open ON usage (uid) WHERE stopped IS NULL;
    CREATE TABLE operation (
        id TEXT PRIMARY KEY, uid TEXT NOT NULL, started TEXT NOT NULL, ended TEXT, code TEXT, message TEXT
    );
    CREATE INDEX operation_ended ON operation (ended);
    """,
    """
    CREATE TABLE disk (
        uid TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, id TEXT NOT NULL, location TEXT NOT NULL, tags BLOB NOT NULL,
        sku TEXT NOT NULL, gigabytes INTEGER NOT NULL, created TEXT NOT NULL
    ) WITHOUT ROWID;
    """,
]

_COLUMNS = "uid, key, id, location, tags, properties, status, next, envelope"


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
        query = f"SELECT {_COLUMNS} FROM container_group"  # noqa: S608  (fixed text)
        for uid, key, id_, location, tags, sealed, status, following, envelope in self.database.read(query):
            properties, flaw = self._properties(id_, sealed)
            updated = None
            if following is not None:
                # An update that is not valid any more is not made.
                updated, update_flaw = self._properties(id_, following)
                updated = updated if update_flaw is None else None
            record = GroupRecord(
                uid,
                key,
                id_,
                location,
                msgspec.json.decode(tags),
                properties,
                msgspec.json.decode(status, type=GroupStatus),
                flaw,
                msgspec.json.decode(envelope, type=Envelope),
                updated,
            )
            records.append(record)
        return records

    def _properties(self, resource_id: str, sealed: bytes) -> tuple[GroupProperties, str | None]:
        return restore(resource_id.rsplit("/", 1)[-1], msgspec.json.decode(self._seal.decrypt(sealed)))

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
            None if group.next is None else self._seal.encrypt(msgspec.json.encode(group.next)),
            msgspec.json.encode(group.envelope),
        )
        await self.database.execute(
            f"INSERT OR REPLACE INTO container_group ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            values,
        )

    async def put_status(self, group: GroupRecord) -> None:
        """Write the status of a group."""
        await self.database.execute(
            "UPDATE container_group SET status = ? WHERE uid = ?", (msgspec.json.encode(group.status), group.uid)
        )

    async def remove(self, uid: str) -> None:
        """Delete a group; its usage record stays."""
        await self.database.execute("DELETE FROM container_group WHERE uid = ?", (uid,))

"""The groups and what became of them, in one SQL file. What a group asks for is sealed: it has passwords in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from cryptography.fernet import Fernet

from cumulet.common import clock
from cumulet.common.config import write_private
from cumulet.common.database import Database
from cumulet.instances.model.properties import GroupProperties
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

#: How many events of a container are kept.
_EVENTS = 50


class State(msgspec.Struct, rename="camel", omit_defaults=True):
    """One state of a container, as `instanceView` has it."""

    state: str
    detail_status: str = ""
    start_time: str | None = None
    finish_time: str | None = None
    exit_code: int | None = None

    @property
    def lived(self) -> float:
        """Seconds from the start to the end, where both are known."""
        if not self.start_time or not self.finish_time:
            return 0.0
        return (clock.parse(self.finish_time) - clock.parse(self.start_time)).total_seconds()


class Event(msgspec.Struct, rename="camel"):
    """Something that happened to a container, and how often."""

    name: str
    message: str
    type: str
    first_timestamp: str
    last_timestamp: str
    count: int = 1


class ContainerStatus(msgspec.Struct, rename="camel"):
    """What became of a container. `attempt` counts its starts and names its files; `ready` is the probe's word."""

    restart_count: int = 0
    current_state: State = msgspec.field(default_factory=lambda: State("Waiting"))
    previous_state: State | None = None
    events: list[Event] = []
    ready: bool = False
    image_id: str = ""
    attempt: int = 0
    #: Whether the newest attempt's files are at the container's number; an earlier version had them at its name.
    numbered: bool = False

    def note(self, name: str, message: str, *, warning: bool = False) -> None:
        """Add an event, or count one that came before; of many the last ones are kept."""
        _note(self.events, name, message, warning)


def _note(events: list[Event], name: str, message: str, warning: bool) -> None:
    now = clock.rfc3339_micro()
    for event in events:
        if (event.name, event.message) == (name, message):
            event.count += 1
            event.last_timestamp = now
            return
    events.append(Event(name, message, "Warning" if warning else "Normal", now, now))
    del events[:-_EVENTS]


class GroupStatus(msgspec.Struct, rename="camel"):
    """What became of a group. `delete_by` is when its containers' grace is over, once it is being deleted.

    `ids` is the first id of the range that its user namespace has, 0 without one, as groups of earlier versions are.
    """

    state: str = "Pending"
    provisioning_state: str = "Pending"
    ip: str = ""
    ids: int = 0
    stopped: bool = False
    delete_by: str | None = None
    containers: dict[str, ContainerStatus] = {}
    events: list[Event] = []

    def note(self, name: str, message: str, *, warning: bool = False) -> None:
        """Add an event of the whole group, or count one that came before; of many the last ones are kept."""
        _note(self.events, name, message, warning)


class GroupRecord(msgspec.Struct):
    """A group; `uid` names it on this machine, `key` is its resource id in lower case.

    `flaw` says why a group that an earlier version took is not valid any more.
    """

    uid: str
    key: str
    id: str
    location: str
    tags: dict[str, str]
    properties: GroupProperties
    status: GroupStatus
    flaw: str | None = None


class Store:
    """Reads everything once at the start; each change is durable when it returns."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(folder / "instances.db", _MIGRATIONS)
        key_file = folder / "seal.key"
        if not key_file.exists():
            write_private(key_file, Fernet.generate_key())
        self._seal = Fernet(key_file.read_bytes())

    def open(self) -> None:
        """Open the file."""
        self.database.open()

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    def groups(self) -> list[GroupRecord]:
        """Every group."""
        found = []
        for uid, key, id_, location, tags, sealed, status in self.database.read("SELECT * FROM container_group"):
            properties, flaw = restore(id_.rsplit("/", 1)[-1], msgspec.json.decode(self._seal.decrypt(sealed)))
            decoded = msgspec.json.decode(status, type=GroupStatus)
            found.append(GroupRecord(uid, key, id_, location, msgspec.json.decode(tags), properties, decoded, flaw))
        return found

    async def put(self, group: GroupRecord) -> None:
        """Add or replace a group."""
        values: tuple[Any, ...] = (
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
        """Write what became of a group."""
        await self.database.execute(
            "UPDATE container_group SET status = ? WHERE uid = ?", (msgspec.json.encode(group.status), group.uid)
        )

    async def remove(self, uid: str) -> None:
        """Forget a group; its bill stays."""
        await self.database.execute("DELETE FROM container_group WHERE uid = ?", (uid,))

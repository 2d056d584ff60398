"""ACR's `changeableAttributes` of repositories, tags and manifests, stored as a bit mask of locks.

A write lock forbids changes and deletion, and a delete lock forbids only deletion. A read lock forbids pulls, and a list
lock hides an object from lists (Azure Container Registry, "Lock a container image").
"""

from __future__ import annotations

import sqlite3

import msgspec

from cumulet.registry.oci.errors import OciError

DELETE, WRITE, LIST, READ = 1, 2, 4, 8

_MESSAGE = "The operation is disallowed on this registry, repository or image."


class AttributeChanges(msgspec.Struct, frozen=True, rename="camel"):
    """The attributes in a PATCH. `None` leaves an attribute unchanged."""

    delete_enabled: bool | None = None
    write_enabled: bool | None = None
    list_enabled: bool | None = None
    read_enabled: bool | None = None


class Attributes(msgspec.Struct, frozen=True, rename="camel"):
    """ACR's `changeableAttributes`."""

    delete_enabled: bool = True
    write_enabled: bool = True
    list_enabled: bool = True
    read_enabled: bool = True

    @classmethod
    def of(cls, locks: int) -> Attributes:
        """The attributes of a mask of locks."""
        return cls(not locks & DELETE, not locks & WRITE, not locks & LIST, not locks & READ)

    @property
    def locks(self) -> int:
        """The mask of locks."""
        return sum(
            bit
            for bit, enabled in zip((DELETE, WRITE, LIST, READ), msgspec.structs.astuple(self), strict=True)
            if not enabled
        )

    def changed(self, changes: AttributeChanges) -> Attributes:
        """These attributes after a PATCH."""
        given = {name: value for name, value in msgspec.structs.asdict(changes).items() if value is not None}
        return msgspec.structs.replace(self, **given)


def disallowed(what: str) -> OciError:
    """405 with the code and message of ACR, and the name of the locked object."""
    return OciError(405, "REGISTRY_DISALLOWED_OPERATION", f"{_MESSAGE} {what} is locked.")


def demand_unlocked(connection: sqlite3.Connection, mask: int, registry: str, repository: str) -> None:
    """Raises `OciError` 405 where the repository has one of the locks in `mask`."""
    row = connection.execute(
        "SELECT locks FROM repository WHERE registry = ? AND name = ?", (registry, repository)
    ).fetchone()
    if row is not None and row[0] & mask:
        raise disallowed(f"Repository {repository}")


def change(
    connection: sqlite3.Connection, registry: str, repository: str, reference: str | None, changes: AttributeChanges
) -> Attributes | None:
    """Change the attributes of a repository, or of a tag or manifest in it. Returns `None` where it does not exist."""
    if reference is None:
        where, key = "repository WHERE registry = ? AND name = ?", (registry, repository)
    elif ":" in reference:
        where = "manifest WHERE registry = ? AND repository = ? AND digest = ? AND deleted IS NULL"
        key = (registry, repository, reference)  # type: ignore[assignment]
    else:
        where = "tag WHERE registry = ? AND repository = ? AND name = ?"
        key = (registry, repository, reference)  # type: ignore[assignment]
    table, _, condition = where.partition(" ")
    row = connection.execute(f"SELECT locks FROM {table} {condition}", key).fetchone()  # noqa: S608
    if row is None:
        return None
    attributes = Attributes.of(row[0]).changed(changes)
    connection.execute(f"UPDATE {table} SET locks = ? {condition}", (attributes.locks, *key))  # noqa: S608
    return attributes

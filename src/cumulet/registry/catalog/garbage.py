"""The queries of a garbage collection in one repository, each run within one transaction."""

from __future__ import annotations

import json
import sqlite3
from typing import NamedTuple

import msgspec

from cumulet.common.digests import Digest
from cumulet.registry.catalog import transactions

_HERE = "registry = :registry AND repository = :repository"

#: A manifest is kept when a tag names it, it lost its last tag recently, it is locked or soft-deleted, or a running push
#: depends on it. It is also kept when a kept manifest names it, or when its subject is a kept manifest.
_EXPIRED = f"""
    WITH RECURSIVE kept (digest) AS (
        SELECT digest FROM manifest WHERE {_HERE} AND deleted IS NULL AND (
            untagged IS NULL OR untagged >= :untagged_before OR locks & 3
            OR digest IN (SELECT value FROM json_each(:in_use))
        )
        UNION
        SELECT r.digest FROM kept JOIN reference r ON r.{_HERE.replace(" AND ", " AND r.")} AND r.manifest = kept.digest
        UNION
        SELECT m.digest FROM kept JOIN manifest m ON m.{_HERE.replace(" AND ", " AND m.")} AND m.subject = kept.digest
    )
    SELECT digest FROM manifest WHERE {_HERE} AND deleted IS NULL AND digest NOT IN (SELECT digest FROM kept)
"""  # noqa: S608

_UNNAMED = f"""
    SELECT digest FROM blob_link WHERE {_HERE} AND NOT EXISTS (
        SELECT 1 FROM reference WHERE {_HERE} AND reference.digest = blob_link.digest
    )
"""  # noqa: S608

#: Whether there may be garbage: a read, so that an unchanged repository does not wait for the writer.
MAYBE = f"""
    SELECT EXISTS ({_UNNAMED.strip()})
        OR EXISTS (SELECT 1 FROM manifest WHERE {_HERE} AND deleted < :deleted_before)
        OR EXISTS (SELECT 1 FROM manifest WHERE {_HERE} AND deleted IS NULL AND untagged < :untagged_before)
        OR NOT EXISTS (SELECT 1 FROM manifest WHERE {_HERE})
"""  # noqa: S608

_EMPTY = """
    DELETE FROM repository WHERE registry = :registry AND name = :repository AND locks = 0
    AND NOT EXISTS (SELECT 1 FROM manifest WHERE manifest.registry = :registry AND manifest.repository = :repository)
    AND NOT EXISTS (SELECT 1 FROM blob_link WHERE blob_link.registry = :registry AND blob_link.repository = :repository)
"""


class Policies(msgspec.Struct, frozen=True):
    """The times before which manifests expire, in RFC 3339. An empty text is before all times."""

    untagged_before: str
    deleted_before: str


class Garbage(NamedTuple):
    """Digests of expired manifests, of soft-deleted manifests to purge, and of blobs that no manifest names."""

    untagged: set[Digest]
    deleted: set[Digest]
    blobs: set[Digest]

    @property
    def empty(self) -> bool:
        """Whether there is no garbage."""
        return not (self.untagged or self.deleted or self.blobs)


def sweep(
    connection: sqlite3.Connection, place: tuple[str, str], policies: Policies, in_use: set[str] | None
) -> Garbage:
    """Remove the garbage manifests, and find the blobs that no manifest names afterwards.

    `in_use` are the digests that running pushes depend on, or `None` for all.
    """
    every = Garbage(_expired(connection, place, policies, in_use), _purgeable(connection, place, policies), set())
    _remove_manifests(connection, place, every)
    return every._replace(blobs=_query(connection, _UNNAMED, place))


def remove(
    connection: sqlite3.Connection,
    place: tuple[str, str],
    policies: Policies,
    in_use: set[str] | None,
    chosen: Garbage,
) -> Garbage:
    """Remove the part of `chosen` that is still garbage, and the repository if it is then empty."""
    still = Garbage(
        chosen.untagged & _expired(connection, place, policies, in_use),
        chosen.deleted & _purgeable(connection, place, policies),
        set(),
    )
    _remove_manifests(connection, place, still)
    blobs = chosen.blobs & _query(connection, _UNNAMED, place)
    connection.executemany(
        "DELETE FROM blob_link WHERE registry = ? AND repository = ? AND digest = ?",
        [(*place, digest) for digest in blobs],
    )
    connection.execute(_EMPTY, _names(place))
    return still._replace(blobs=blobs)


def _expired(
    connection: sqlite3.Connection, place: tuple[str, str], policies: Policies, in_use: set[str] | None
) -> set[Digest]:
    if not policies.untagged_before or in_use is None:
        return set()
    return _query(
        connection,
        _EXPIRED,
        place,
        untagged_before=policies.untagged_before,
        in_use=json.dumps(sorted(in_use)),
    )


def _purgeable(connection: sqlite3.Connection, place: tuple[str, str], policies: Policies) -> set[Digest]:
    sql = f"SELECT digest FROM manifest WHERE {_HERE} AND deleted < :before"  # noqa: S608
    return _query(connection, sql, place, before=policies.deleted_before)


def _remove_manifests(connection: sqlite3.Connection, place: tuple[str, str], garbage: Garbage) -> None:
    for digest in garbage.untagged:
        transactions.discard_manifest(connection, *place, digest)
    connection.executemany(
        "DELETE FROM manifest WHERE registry = ? AND repository = ? AND digest = ?",
        [(*place, digest) for digest in garbage.deleted],
    )


def _query(connection: sqlite3.Connection, sql: str, place: tuple[str, str], **values: str) -> set[Digest]:
    return {digest for (digest,) in connection.execute(sql, {**_names(place), **values})}


def _names(place: tuple[str, str]) -> dict[str, str]:
    return {"registry": place[0], "repository": place[1]}

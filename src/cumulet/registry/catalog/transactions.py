"""The writes of the catalog: the checks and changes of each, in one transaction.

Writes run one after the other. So the conditions that a write checks still hold when it makes its changes: locks, quota,
the parts of a manifest, and unused blobs. All raise `OciError`: 405 where a lock forbids the write, 403 where the quota is
used up, 404 where the registry was deleted in the meantime.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from cumulet.common import clock
from cumulet.registry.catalog import locks
from cumulet.registry.catalog.records import Manifest, MissingPartsError, Parts, Resource, Upload
from cumulet.registry.oci.errors import OciError

_HERE = "registry = ? AND repository = ?"
_THIS = f"{_HERE} AND digest = ?"


def link_blob(connection: sqlite3.Connection, registry: str, repository: str, digest: str, size: int) -> None:
    """Link a blob to a repository."""
    locks.demand_unlocked(connection, locks.WRITE, registry, repository)
    before, _ = _usage(connection, registry)
    _touch(connection, registry, repository)
    connection.execute("INSERT OR IGNORE INTO blob_link VALUES (?, ?, ?, ?)", (registry, repository, digest, size))
    _demand_room(connection, registry, before)


def put_upload(connection: sqlite3.Connection, upload: Upload) -> None:
    """Store an upload session."""
    _usage(connection, upload.registry)
    connection.execute("INSERT INTO upload VALUES (?, ?, ?, ?, ?, ?)", msgspec.structs.astuple(upload))


def unlink_blob(connection: sqlite3.Connection, registry: str, repository: str, digest: str) -> bool:
    """Unlink a blob from a repository, unless a locked manifest names it. Returns whether the repository had it."""
    locks.demand_unlocked(connection, locks.DELETE | locks.WRITE, registry, repository)
    key = (registry, repository, digest)
    row = connection.execute(
        "SELECT manifest FROM reference JOIN manifest m USING (registry, repository)"  # noqa: S608
        f" WHERE {_HERE} AND reference.digest = ? AND m.digest = reference.manifest AND m.locks & 3",
        key,
    ).fetchone()
    if row is not None:
        raise locks.disallowed(f"Manifest {row[0]}, which names the blob,")
    return bool(connection.execute(f"DELETE FROM blob_link WHERE {_THIS}", key).rowcount)  # noqa: S608


def put_manifest(
    connection: sqlite3.Connection,
    registry: str,
    repository: str,
    manifest: Manifest,
    parts: Parts,
    tags: Sequence[str],
) -> None:
    """Store a manifest and set tags to it. Raises `MissingPartsError`."""
    locks.demand_unlocked(connection, locks.WRITE, registry, repository)
    here = (registry, repository)
    missing = [part for part in parts.required if not _has(connection, registry, repository, part)]
    if missing:
        raise MissingPartsError(missing)
    before, _ = _usage(connection, registry)
    now = _touch(connection, registry, repository)
    connection.execute(
        "INSERT INTO manifest (registry, repository, digest, media_type, body, subject, artifact_type, annotations,"
        " created, untagged) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET deleted = NULL, media_type = excluded.media_type,"
        " untagged = CASE WHEN untagged IS NULL THEN NULL ELSE excluded.untagged END",
        (
            *here,
            manifest.digest,
            manifest.media_type,
            manifest.body,
            manifest.subject,
            manifest.artifact_type,
            msgspec.json.encode(manifest.annotations),
            manifest.created,
            now,
        ),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO reference VALUES (?, ?, ?, ?)",
        [(*here, part, manifest.digest) for part in parts.named],
    )
    connection.execute(f"DELETE FROM deleted_tag WHERE {_THIS}", (*here, manifest.digest))  # noqa: S608
    for tag in tags:
        put_tag(connection, registry, repository, tag, manifest.digest)
    _demand_room(connection, registry, before)


def put_tag(connection: sqlite3.Connection, registry: str, repository: str, tag: str, digest: str) -> None:
    """Set a tag to a manifest that exists."""
    here = (registry, repository)
    now = clock.rfc3339_micro()
    row = connection.execute(f"SELECT digest, locks FROM tag WHERE {_HERE} AND name = ?", (*here, tag)).fetchone()  # noqa: S608
    if row is not None and row[1] & locks.WRITE and row[0] != digest:
        raise locks.disallowed(f"Tag {tag}")
    connection.execute(
        "INSERT INTO tag VALUES (?, ?, ?, ?, ?, ?, 0) ON CONFLICT (registry, repository, name)"
        " DO UPDATE SET digest = excluded.digest, updated = excluded.updated",
        (*here, tag, digest, now, now),
    )
    connection.execute(f"UPDATE manifest SET untagged = NULL WHERE {_THIS}", (*here, digest))  # noqa: S608
    if row is not None and row[0] != digest:
        _record_untagged(connection, registry, repository, row[0])


def remove_tag(connection: sqlite3.Connection, registry: str, repository: str, name: str) -> bool:
    """Remove a tag, keep its manifest, and return whether the tag existed."""
    locks.demand_unlocked(connection, locks.DELETE | locks.WRITE, registry, repository)
    where, key = f"{_HERE} AND name = ?", (registry, repository, name)
    row = connection.execute(f"SELECT digest, locks FROM tag WHERE {where}", key).fetchone()  # noqa: S608
    if row is None:
        return False
    if row[1] & (locks.DELETE | locks.WRITE):
        raise locks.disallowed(f"Tag {name}")
    connection.execute(f"DELETE FROM tag WHERE {where}", key)  # noqa: S608
    _record_untagged(connection, registry, repository, row[0])
    return True


def remove_manifest(connection: sqlite3.Connection, registry: str, repository: str, digest: str) -> bool:
    """Remove a manifest and its tags, or soft-delete them by the registry's policy. Returns whether it existed."""
    key = (registry, repository, digest)
    locks.demand_unlocked(connection, locks.DELETE | locks.WRITE, registry, repository)
    for table, name in (("manifest", f"Manifest {digest}"), ("tag", f"A tag of manifest {digest}")):
        if connection.execute(f"SELECT 1 FROM {table} WHERE {_THIS} AND locks & 3", key).fetchone():  # noqa: S608
            raise locks.disallowed(name)
    return discard_manifest(connection, registry, repository, digest)


def discard_manifest(connection: sqlite3.Connection, registry: str, repository: str, digest: str) -> bool:
    """Remove or soft-delete a manifest whose locks were checked before. Returns whether it existed."""
    if _is_soft(connection, registry):
        return _hide(connection, registry, repository, digest)
    key = (registry, repository, digest)
    removed = connection.execute(f"DELETE FROM manifest WHERE {_THIS} AND deleted IS NULL", key)  # noqa: S608
    return bool(removed.rowcount)


def remove_repository(connection: sqlite3.Connection, registry: str, repository: str) -> bool:
    """Remove a repository, or soft-delete its manifests by the registry's policy. Returns whether it existed."""
    here = (registry, repository)
    locks.demand_unlocked(connection, locks.DELETE | locks.WRITE, registry, repository)
    locked = connection.execute(
        f"SELECT digest FROM manifest WHERE {_HERE} AND locks & 3 AND deleted IS NULL"  # noqa: S608
        f" UNION ALL SELECT name FROM tag WHERE {_HERE} AND locks & 3",
        here * 2,
    ).fetchone()
    if locked is not None:
        raise locks.disallowed(f"{locked[0]} in repository {repository}")
    if not _is_soft(connection, registry):
        removed = connection.execute("DELETE FROM repository WHERE registry = ? AND name = ?", here)
        return bool(removed.rowcount)
    rows = connection.execute(f"SELECT digest FROM manifest WHERE {_HERE} AND deleted IS NULL", here).fetchall()  # noqa: S608
    for (digest,) in rows:
        _hide(connection, registry, repository, digest)
    return bool(rows)


def restore_manifest(
    connection: sqlite3.Connection, registry: str, repository: str, digest: str, tags: Sequence[str], *, force: bool
) -> bool:
    """Restore a soft-deleted manifest and return whether it existed.

    `tags` are set to it, by default its former tags. Raises `OciError` 409 where a tag now names another manifest, unless
    `force` is set.
    """
    locks.demand_unlocked(connection, locks.WRITE, registry, repository)
    key = (registry, repository, digest)
    restored = connection.execute(
        f"UPDATE manifest SET deleted = NULL, untagged = ? WHERE {_THIS} AND deleted IS NOT NULL",  # noqa: S608
        (clock.rfc3339_micro(), *key),
    )
    if not restored.rowcount:
        return False
    former = connection.execute(f"SELECT name FROM deleted_tag WHERE {_THIS}", key).fetchall()  # noqa: S608
    for tag in tags or [name for (name,) in former]:
        row = connection.execute(
            f"SELECT digest FROM tag WHERE {_HERE} AND name = ?",  # noqa: S608
            (registry, repository, tag),
        ).fetchone()
        if row is not None and row[0] != digest and not force:
            raise OciError(409, "CONFLICT", f"tag {tag} now names {row[0]}: restore with force to move it")
        put_tag(connection, registry, repository, tag, digest)
    connection.execute(f"DELETE FROM deleted_tag WHERE {_THIS}", key)  # noqa: S608
    return True


def _has(connection: sqlite3.Connection, registry: str, repository: str, digest: str) -> bool:
    key = (registry, repository, digest)
    rows = connection.execute(
        f"SELECT 1 FROM blob_link WHERE {_THIS}"  # noqa: S608
        f" UNION ALL SELECT 1 FROM manifest WHERE {_THIS} AND deleted IS NULL",
        key * 2,
    )
    return rows.fetchone() is not None


def _record_untagged(connection: sqlite3.Connection, registry: str, repository: str, digest: str) -> None:
    """Record the time when a manifest lost its last tag, from which the retention policy counts."""
    key = (registry, repository, digest)
    connection.execute(
        f"UPDATE manifest SET untagged = ? WHERE {_THIS} AND NOT EXISTS (SELECT 1 FROM tag WHERE {_THIS})",  # noqa: S608
        (clock.rfc3339_micro(), *key, *key),
    )


def _is_soft(connection: sqlite3.Connection, registry: str) -> bool:
    row = connection.execute("SELECT resource FROM registry WHERE key = ?", (registry,)).fetchone()
    return row is not None and msgspec.json.decode(row[0], type=Resource).soft_delete.enabled


def _hide(connection: sqlite3.Connection, registry: str, repository: str, digest: str) -> bool:
    """Soft-delete a manifest with its tags and return whether it existed."""
    key = (registry, repository, digest)
    now = clock.rfc3339_micro()
    hidden = connection.execute(
        f"UPDATE manifest SET deleted = ?, untagged = ifnull(untagged, ?) WHERE {_THIS} AND deleted IS NULL",  # noqa: S608
        (now, now, *key),
    )
    connection.execute(
        "INSERT OR REPLACE INTO deleted_tag SELECT registry, repository, name, digest, ? FROM tag"  # noqa: S608
        f" WHERE {_THIS}",
        (now, *key),
    )
    connection.execute(f"DELETE FROM tag WHERE {_THIS}", key)  # noqa: S608
    return bool(hidden.rowcount)


def _usage(connection: sqlite3.Connection, registry: str) -> tuple[int, int | None]:
    row = connection.execute("SELECT bytes, quota FROM usage WHERE registry = ?", (registry,)).fetchone()
    if row is None:
        raise OciError(404, "NAME_UNKNOWN", f"registry '{registry}' was deleted")
    bytes_, quota = row
    return bytes_, quota


def _demand_room(connection: sqlite3.Connection, registry: str, before: int) -> None:
    held, quota = _usage(connection, registry)
    if quota is not None and held > quota and held > before:
        raise no_room(registry, before, quota)


def no_room(registry: str, held: int, quota: int) -> OciError:
    """403 with the used bytes and the quota of a registry."""
    return OciError(
        403,
        "DENIED",
        f"the storage quota of registry '{registry}' is used up: it holds {held} of {quota} bytes, and this does not fit",
        {"usedBytes": held, "quotaBytes": quota},
    )


def _touch(connection: sqlite3.Connection, registry: str, repository: str) -> str:
    now = clock.rfc3339_micro()
    connection.execute(
        "INSERT INTO repository VALUES (?, ?, ?, ?, 0)"
        " ON CONFLICT (registry, name) DO UPDATE SET updated = excluded.updated",
        (registry, repository, now, now),
    )
    return now

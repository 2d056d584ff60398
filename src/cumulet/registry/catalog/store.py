"""The catalog: registries, repositories, manifests, tags, and the blobs of each repository."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from cumulet.common.database import Database
from cumulet.registry.catalog import locks, transactions
from cumulet.registry.catalog.child_resources import Resources
from cumulet.registry.catalog.locks import AttributeChanges, Attributes
from cumulet.registry.catalog.records import (
    Blob,
    DeletedTag,
    Manifest,
    MissingPartsError,
    Parts,
    Policy,
    Registry,
    Repository,
    Resource,
    Tag,
    Upload,
)
from cumulet.registry.catalog.schema import MIGRATIONS

__all__ = [
    "Catalog",
    "DeletedTag",
    "Manifest",
    "MissingPartsError",
    "Parts",
    "Policy",
    "Registry",
    "Repository",
    "Resource",
    "Tag",
    "Upload",
]

_MANIFEST = "m.digest, m.media_type, m.body, m.subject, m.artifact_type, m.annotations, m.created, m.locks, m.deleted"
_HERE = "registry = ? AND repository = ?"


class Catalog:
    """Reads are indexed queries. Writes are durable when they return, and raise the errors of `transactions`."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path, MIGRATIONS)
        #: The child resources of the registries.
        self.resources = Resources(self.database)

    def open(self) -> None:
        """Open the file."""
        self.database.open()

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    # Registries.

    def registries(self) -> list[Registry]:
        """Every registry, the oldest first."""
        return [
            Registry(key, id_, name, msgspec.json.decode(resource, type=Resource), created)
            for key, id_, name, resource, created in self.database.read(
                "SELECT * FROM registry ORDER BY created, key"
            )
        ]

    async def put_registry(self, registry: Registry) -> None:
        """Add or change a registry."""

        def job(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO registry VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (key) DO UPDATE SET resource = excluded.resource",
                (registry.key, registry.id, registry.name, resource, registry.created),
            )
            connection.execute("UPDATE usage SET quota = ? WHERE registry = ?", (quota, registry.key))

        resource, quota = msgspec.json.encode(registry.resource), registry.resource.storage_quota
        await self.database.write(job)

    async def remove_registry(self, key: str) -> None:
        """Remove a registry with its content. The next collection removes the bytes of its blobs."""
        await self.database.execute("DELETE FROM registry WHERE key = ?", (key,))

    def usage(self, registry: str) -> int:
        """The bytes that a registry holds: each blob once, and all manifests, including soft-deleted ones."""
        rows = self.database.read("SELECT bytes FROM usage WHERE registry = ?", (registry,))
        return int(rows[0][0]) if rows else 0

    # Repositories.

    def repositories(self, registry: str, after: str = "", limit: int = -1) -> list[str]:
        """The names, in order, of the repositories that have a manifest and no list lock."""
        rows = self.database.read(
            f"""
            SELECT name FROM repository WHERE registry = ? AND name > ? AND NOT locks & {locks.LIST} AND EXISTS (
                SELECT 1 FROM manifest WHERE manifest.registry = repository.registry
                AND manifest.repository = repository.name AND deleted IS NULL
            ) ORDER BY name LIMIT ?
            """,  # noqa: S608
            (registry, after, limit),
        )
        return [name for (name,) in rows]

    def all_repositories(self, registry: str) -> list[str]:
        """The names of all repositories, including empty and unlisted ones."""
        return [n for (n,) in self.database.read("SELECT name FROM repository WHERE registry = ?", (registry,))]

    def repository(self, registry: str, name: str) -> Repository | None:
        """A repository, or `None` where it does not exist."""
        rows = self.database.read(
            f"""
            SELECT name, created, updated, locks,
                (SELECT count(*) FROM manifest WHERE {_HERE} AND deleted IS NULL),
                (SELECT count(*) FROM tag WHERE {_HERE})
            FROM repository WHERE registry = ? AND name = ?
            """,  # noqa: S608
            (registry, name) * 3,
        )
        return next(
            (
                Repository(n, created, updated, Attributes.of(mask), *counts)
                for n, created, updated, mask, *counts in rows
            ),
            None,
        )

    def repository_exists(self, registry: str, name: str) -> bool:
        """Whether a repository exists, with or without manifests."""
        return bool(self.database.read("SELECT 1 FROM repository WHERE registry = ? AND name = ?", (registry, name)))

    def repository_locks(self, registry: str, name: str) -> int:
        """The locks of a repository as a mask, 0 where it does not exist."""
        rows = self.database.read("SELECT locks FROM repository WHERE registry = ? AND name = ?", (registry, name))
        return int(rows[0][0]) if rows else 0

    async def remove_repository(self, registry: str, name: str) -> bool:
        """Remove a repository, or soft-delete its manifests by the registry's policy. Returns whether it existed."""
        return await self.database.write(lambda c: transactions.remove_repository(c, registry, name))

    async def change_attributes(
        self, registry: str, repository: str, reference: str | None, changes: AttributeChanges
    ) -> Attributes | None:
        """Lock or unlock a repository, or a tag or manifest (by digest) in it. Returns `None` where it does not exist."""
        return await self.database.write(lambda c: locks.change(c, registry, repository, reference, changes))

    # Blobs.

    def blob(self, registry: str, repository: str, digest: str) -> Blob | None:
        """A blob of a repository, or `None`."""
        rows = self.database.read(
            f"SELECT b.size, NOT r.locks & {locks.READ} FROM blob_link b"  # noqa: S608
            " JOIN repository r ON r.registry = b.registry AND r.name = b.repository"
            " WHERE b.registry = ? AND b.repository = ? AND b.digest = ?",
            (registry, repository, digest),
        )
        return Blob(rows[0][0], bool(rows[0][1])) if rows else None

    def repositories_with(self, registry: str, digest: str) -> list[str]:
        """The repositories of a registry that have a blob."""
        sql = "SELECT repository FROM blob_link WHERE digest = ? AND registry = ? ORDER BY repository"
        return [name for (name,) in self.database.read(sql, (digest, registry))]

    async def link_blob(self, registry: str, repository: str, digest: str, size: int) -> None:
        """Link a stored blob to a repository."""
        await self.database.write(lambda c: transactions.link_blob(c, registry, repository, digest, size))

    async def unlink_blob(self, registry: str, repository: str, digest: str) -> bool:
        """Unlink a blob from a repository and return whether it had it."""
        return await self.database.write(lambda c: transactions.unlink_blob(c, registry, repository, digest))

    def link_count(self, digest: str) -> int:
        """The number of repositories, in all registries, that have a blob."""
        rows = self.database.read("SELECT count(*) FROM blob_link WHERE digest = ?", (digest,))
        return int(rows[0][0])

    def is_linked(self, digest: str) -> bool:
        """Whether any repository of any registry has a blob."""
        return bool(self.database.read("SELECT 1 FROM blob_link WHERE digest = ? LIMIT 1", (digest,)))

    # Manifests and tags.

    def manifest(self, registry: str, repository: str, reference: str) -> Manifest | None:
        """A manifest by its digest or a tag. The caller must check `readable` before serving it."""
        if ":" in reference:
            source, mask, key = "manifest m", "m.locks", "m.digest"
        else:
            source = "tag t JOIN manifest m USING (registry, repository, digest)"
            mask, key = "(m.locks | t.locks)", "t.name"
        rows = self.database.read(
            f"SELECT {_MANIFEST}, NOT ({mask} | r.locks) & {locks.READ} FROM {source}"  # noqa: S608
            " JOIN repository r ON r.registry = ?1 AND r.name = ?2"
            f" WHERE m.registry = ?1 AND m.repository = ?2 AND {key} = ?3 AND m.deleted IS NULL",
            (registry, repository, reference),
        )
        return _manifest(rows[0]) if rows else None

    def manifests(self, registry: str, repository: str, after: str = "", limit: int = -1) -> list[Manifest]:
        """The manifests of a repository without a list lock, ordered by digest."""
        return self._list(registry, repository, "digest > ? AND deleted IS NULL", (after,), limit)

    def manifest_times(self, registry: str, repository: str) -> list[tuple[str, str]]:
        """(digest, created) of the manifests of a repository without a list lock, ordered by digest."""
        sql = f"SELECT digest, created FROM manifest WHERE {_HERE} AND deleted IS NULL AND NOT locks & {locks.LIST}"  # noqa: S608
        return self.database.read(sql + " ORDER BY digest", (registry, repository))

    def referrers(
        self,
        registry: str,
        repository: str,
        subject: str,
        artifact_type: str | None = None,
        after: str = "",
        limit: int = -1,
    ) -> list[Manifest]:
        """The manifests with a subject, which need not exist, ordered by digest. Without a type, those of all types."""
        condition = "digest > ? AND deleted IS NULL AND subject = ?"
        if artifact_type is None:
            return self._list(registry, repository, condition, (after, subject), limit)
        return self._list(
            registry, repository, f"{condition} AND artifact_type = ?", (after, subject, artifact_type), limit
        )

    def _list(
        self, registry: str, repository: str, condition: str, values: tuple[str, ...], limit: int
    ) -> list[Manifest]:
        rows = self.database.read(
            f"SELECT {_MANIFEST}, NOT locks & {locks.READ} FROM manifest m WHERE {_HERE} AND {condition}"  # noqa: S608
            f" AND NOT locks & {locks.LIST} ORDER BY digest LIMIT ?",
            (registry, repository, *values, limit),
        )
        return [_manifest(row) for row in rows]

    async def put_manifest(
        self, registry: str, repository: str, manifest: Manifest, parts: Parts, tags: Sequence[str]
    ) -> None:
        """Store a manifest and set tags to it. Raises `MissingPartsError`."""
        await self.database.write(lambda c: transactions.put_manifest(c, registry, repository, manifest, parts, tags))

    async def remove_manifest(self, registry: str, repository: str, digest: str) -> bool:
        """Remove a manifest and its tags, or soft-delete them by the registry's policy. Returns whether it existed."""
        return await self.database.write(lambda c: transactions.remove_manifest(c, registry, repository, digest))

    def tags(
        self, registry: str, repository: str, after: str = "", limit: int = -1, name: str | None = None
    ) -> list[Tag]:
        """The tags of a repository without a list lock, ordered by name; or the tag `name`, with or without a lock."""
        if name is not None:
            condition, values = "name = ?", (name, 1)
        else:
            condition, values = f"name > ? AND NOT locks & {locks.LIST}", (after, limit)
        rows = self.database.read(
            f"SELECT name, digest, created, updated, locks FROM tag WHERE {_HERE}"  # noqa: S608
            f" AND {condition} ORDER BY name LIMIT ?",
            (registry, repository, *values),
        )
        return [Tag(*row) for row in rows]

    async def remove_tag(self, registry: str, repository: str, name: str) -> bool:
        """Remove a tag, keep its manifest, and return whether the tag existed."""
        return await self.database.write(lambda c: transactions.remove_tag(c, registry, repository, name))

    # Soft-deleted manifests and tags.

    def deleted_repositories(self, registry: str, after: str = "", limit: int = -1) -> list[str]:
        """The names, in order, of the repositories that have a soft-deleted manifest."""
        sql = (
            "SELECT DISTINCT repository FROM manifest WHERE registry = ? AND repository > ?"
            " AND deleted IS NOT NULL ORDER BY repository LIMIT ?"
        )
        return [name for (name,) in self.database.read(sql, (registry, after, limit))]

    def deleted_manifests(self, registry: str, repository: str, after: str = "", limit: int = -1) -> list[Manifest]:
        """The soft-deleted manifests of a repository, ordered by digest."""
        return self._list(registry, repository, "digest > ? AND deleted IS NOT NULL", (after,), limit)

    def deleted_tags(
        self, registry: str, repository: str, after: str = "", limit: int = -1, name: str | None = None
    ) -> list[DeletedTag]:
        """The tags deleted with soft-deleted manifests, ordered by name. A name may occur with several manifests."""
        rows = self.database.read(
            f"SELECT name, digest, deleted FROM deleted_tag WHERE {_HERE} AND name > ? AND name = ifnull(?, name)"  # noqa: S608
            " ORDER BY name, deleted LIMIT ?",
            (registry, repository, after, name, limit),
        )
        return [DeletedTag(*row) for row in rows]

    async def restore_manifest(
        self, registry: str, repository: str, digest: str, tags: Sequence[str] = (), *, force: bool = False
    ) -> bool:
        """Restore a soft-deleted manifest with `tags`, or by default with its former tags. Returns whether it existed.

        Raises `OciError` 409 where a tag now names another manifest, unless `force` is set.
        """
        return await self.database.write(
            lambda c: transactions.restore_manifest(c, registry, repository, digest, tags, force=force)
        )

    # Uploads.

    def upload(self, session: str) -> Upload | None:
        """An upload session, or `None`."""
        rows = self.database.read("SELECT * FROM upload WHERE session = ?", (session,))
        return Upload(*rows[0]) if rows else None

    async def put_upload(self, upload: Upload) -> None:
        """Store an upload session."""
        await self.database.write(lambda c: transactions.put_upload(c, upload))

    async def remove_upload(self, session: str) -> None:
        """Remove an upload session."""
        await self.database.execute("DELETE FROM upload WHERE session = ?", (session,))


#: The columns of `_MANIFEST`, and whether the manifest is readable.
_Row = tuple[str, str, bytes, str | None, str | None, bytes, str, int, str | None, int]


def _manifest(row: _Row) -> Manifest:
    digest, media_type, body, subject, artifact_type, annotations, created, mask, deleted, readable = row
    return Manifest(
        digest,
        media_type,
        body,
        subject,
        artifact_type,
        msgspec.json.decode(annotations, type=dict[str, str] | None),
        created,
        mask,
        deleted,
        bool(readable),
    )

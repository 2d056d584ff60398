"""What is in the registries: registries, repositories, manifests, tags and which repository has which blob."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from cumulet.common import clock
from cumulet.common.database import Database
from cumulet.registry.resources import SCHEMA, Resources

_MIGRATIONS = [
    """
    CREATE TABLE registry (
        key TEXT PRIMARY KEY, id TEXT NOT NULL, name TEXT NOT NULL, resource BLOB NOT NULL, created TEXT NOT NULL
    );
    CREATE TABLE repository (
        registry TEXT NOT NULL REFERENCES registry (key) ON DELETE CASCADE,
        name TEXT NOT NULL, created TEXT NOT NULL, updated TEXT NOT NULL,
        PRIMARY KEY (registry, name)
    ) WITHOUT ROWID;
    CREATE TABLE blob_link (
        registry TEXT NOT NULL, repository TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
        PRIMARY KEY (registry, repository, digest),
        FOREIGN KEY (registry, repository) REFERENCES repository (registry, name) ON DELETE CASCADE
    ) WITHOUT ROWID;
    CREATE INDEX blob_link_digest ON blob_link (digest);
    CREATE TABLE manifest (
        registry TEXT NOT NULL, repository TEXT NOT NULL, digest TEXT NOT NULL,
        media_type TEXT NOT NULL, body BLOB NOT NULL, subject TEXT, artifact_type TEXT, annotations BLOB,
        created TEXT NOT NULL,
        PRIMARY KEY (registry, repository, digest),
        FOREIGN KEY (registry, repository) REFERENCES repository (registry, name) ON DELETE CASCADE
    );
    CREATE INDEX manifest_subject ON manifest (registry, repository, subject) WHERE subject IS NOT NULL;
    CREATE TABLE tag (
        registry TEXT NOT NULL, repository TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL,
        created TEXT NOT NULL, updated TEXT NOT NULL,
        PRIMARY KEY (registry, repository, name),
        FOREIGN KEY (registry, repository, digest) REFERENCES manifest (registry, repository, digest) ON DELETE CASCADE
    ) WITHOUT ROWID;
    CREATE INDEX tag_digest ON tag (registry, repository, digest);
    CREATE TABLE upload (
        session TEXT PRIMARY KEY, registry TEXT NOT NULL REFERENCES registry (key) ON DELETE CASCADE,
        repository TEXT NOT NULL, principal TEXT NOT NULL, started TEXT NOT NULL
    );
    """,
    SCHEMA,
]


class Resource(msgspec.Struct, rename="camel", kw_only=True):
    """What Azure Resource Manager says of a registry; the generations are those of the admin user's passwords."""

    location: str
    sku: str = "Basic"
    tags: dict[str, str] = {}
    admin_user_enabled: bool = False
    anonymous_pull_enabled: bool = False
    role_assignment_mode: str = "LegacyRegistryPermissions"
    password_generations: list[int] = msgspec.field(default_factory=lambda: [0, 0])


class Registry(msgspec.Struct):
    """One registry; `key` is its name in lower case."""

    key: str
    id: str
    name: str
    resource: Resource
    created: str


class Manifest(msgspec.Struct, frozen=True):
    """A manifest, byte for byte as it was pushed, with what is asked of it without reading it."""

    digest: str
    media_type: str
    body: bytes
    subject: str | None
    artifact_type: str | None
    annotations: dict[str, str] | None
    created: str


class Upload(msgspec.Struct, frozen=True):
    """An upload session and whose it is."""

    session: str
    registry: str
    repository: str
    principal: str
    started: str


class Catalog:
    """Reads are indexed look-ups; writes are durable when they return."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _MIGRATIONS)
        #: What there is below the registries.
        self.resources = Resources(self._database)

    def open(self) -> None:
        """Open the file."""
        self._database.open()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    # Registries.

    def registries(self) -> list[Registry]:
        """Every registry, the oldest first."""
        return [
            Registry(key, id_, name, msgspec.json.decode(resource, type=Resource), created)
            for key, id_, name, resource, created in self._database.read(
                "SELECT * FROM registry ORDER BY created, key"
            )
        ]

    async def put_registry(self, registry: Registry) -> None:
        """Add or change a registry."""
        await self._database.execute(
            "INSERT INTO registry VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET resource = excluded.resource",
            (registry.key, registry.id, registry.name, msgspec.json.encode(registry.resource), registry.created),
        )

    async def remove_registry(self, key: str) -> None:
        """Remove a registry with everything in it; the blobs' bytes are `orphans` then."""
        await self._database.execute("DELETE FROM registry WHERE key = ?", (key,))

    # Repositories.

    def repositories(self, registry: str, after: str = "", limit: int = -1) -> list[str]:
        """The names of the repositories that have a manifest, in order."""
        return [
            name
            for (name,) in self._database.read(
                """
                SELECT name FROM repository WHERE registry = ? AND name > ? AND EXISTS (
                    SELECT 1 FROM manifest
                    WHERE manifest.registry = repository.registry AND manifest.repository = repository.name
                ) ORDER BY name LIMIT ?
                """,
                (registry, after, limit),
            )
        ]

    def repository_exists(self, registry: str, name: str) -> bool:
        """Whether anything was ever pushed there."""
        return bool(self._database.read("SELECT 1 FROM repository WHERE registry = ? AND name = ?", (registry, name)))

    def repository_times(self, registry: str, name: str) -> tuple[str, str] | None:
        """When a repository was made and last changed."""
        rows = self._database.read(
            "SELECT created, updated FROM repository WHERE registry = ? AND name = ?", (registry, name)
        )
        return rows[0] if rows else None

    async def remove_repository(self, registry: str, name: str) -> bool:
        """Remove a repository with everything in it."""
        return bool(
            await self._database.execute("DELETE FROM repository WHERE registry = ? AND name = ?", (registry, name))
        )

    # Blobs.

    def has_blob(self, registry: str, repository: str, digest: str) -> bool:
        """Whether a repository has a blob."""
        return bool(
            self._database.read(
                "SELECT 1 FROM blob_link WHERE registry = ? AND repository = ? AND digest = ?",
                (registry, repository, digest),
            )
        )

    async def link_blob(self, registry: str, repository: str, digest: str, size: int) -> None:
        """Let a repository have a blob whose bytes are stored."""

        def job(connection: sqlite3.Connection) -> None:
            _touch(connection, registry, repository)
            connection.execute(
                "INSERT OR IGNORE INTO blob_link VALUES (?, ?, ?, ?)", (registry, repository, digest, size)
            )

        await self._database.write(job)

    async def unlink_blob(self, registry: str, repository: str, digest: str) -> bool:
        """Take a blob from a repository."""
        return bool(
            await self._database.execute(
                "DELETE FROM blob_link WHERE registry = ? AND repository = ? AND digest = ?",
                (registry, repository, digest),
            )
        )

    def blob_digests(self, registry: str) -> list[str]:
        """The digests of all blobs of a registry."""
        rows = self._database.read("SELECT DISTINCT digest FROM blob_link WHERE registry = ?", (registry,))
        return [digest for (digest,) in rows]

    def is_linked(self, digest: str) -> bool:
        """Whether any repository of any registry has a blob."""
        return bool(self._database.read("SELECT 1 FROM blob_link WHERE digest = ? LIMIT 1", (digest,)))

    # Manifests and tags.

    def manifest(self, registry: str, repository: str, reference: str) -> Manifest | None:
        """A manifest by its digest, or by a tag."""
        if ":" in reference:
            where = "m.digest = ?"
        else:
            where = "m.digest = (SELECT digest FROM tag WHERE registry = m.registry AND repository = m.repository AND name = ?)"
        rows = self._database.read(
            "SELECT digest, media_type, body, subject, artifact_type, annotations, created FROM manifest m"  # noqa: S608
            f" WHERE m.registry = ? AND m.repository = ? AND {where}",
            (registry, repository, reference),
        )
        return _manifest(rows[0]) if rows else None

    def manifests(self, registry: str, repository: str, after: str = "", limit: int = -1) -> list[Manifest]:
        """The manifests of a repository, by digest."""
        rows = self._database.read(
            "SELECT digest, media_type, body, subject, artifact_type, annotations, created FROM manifest"
            " WHERE registry = ? AND repository = ? AND digest > ? ORDER BY digest LIMIT ?",
            (registry, repository, after, limit),
        )
        return [_manifest(row) for row in rows]

    def referrers(self, registry: str, repository: str, subject: str) -> list[Manifest]:
        """The manifests whose subject is that digest, whether or not it is there."""
        rows = self._database.read(
            "SELECT digest, media_type, body, subject, artifact_type, annotations, created FROM manifest"
            " WHERE registry = ? AND repository = ? AND subject = ? ORDER BY digest",
            (registry, repository, subject),
        )
        return [_manifest(row) for row in rows]

    async def put_manifest(self, registry: str, repository: str, manifest: Manifest, tag: str | None) -> None:
        """Store a manifest, and let a tag name it."""

        def job(connection: sqlite3.Connection) -> None:
            _touch(connection, registry, repository)
            connection.execute(
                "INSERT OR IGNORE INTO manifest VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    registry,
                    repository,
                    manifest.digest,
                    manifest.media_type,
                    manifest.body,
                    manifest.subject,
                    manifest.artifact_type,
                    msgspec.json.encode(manifest.annotations),
                    manifest.created,
                ),
            )
            if tag is not None:
                connection.execute(
                    "INSERT INTO tag VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (registry, repository, name)"
                    " DO UPDATE SET digest = excluded.digest, updated = excluded.updated",
                    (registry, repository, tag, manifest.digest, manifest.created, manifest.created),
                )

        await self._database.write(job)

    async def remove_manifest(self, registry: str, repository: str, digest: str) -> bool:
        """Remove a manifest with the tags that name it."""
        return bool(
            await self._database.execute(
                "DELETE FROM manifest WHERE registry = ? AND repository = ? AND digest = ?",
                (registry, repository, digest),
            )
        )

    def tags(
        self, registry: str, repository: str, after: str = "", limit: int = -1, name: str | None = None
    ) -> list[tuple[str, str, str, str]]:
        """(name, digest, created, updated) of the tags of a repository, by name."""
        return self._database.read(
            "SELECT name, digest, created, updated FROM tag WHERE registry = ? AND repository = ? AND name > ?"
            " AND name = ifnull(?, name) ORDER BY name LIMIT ?",
            (registry, repository, after, name, limit),
        )

    async def remove_tag(self, registry: str, repository: str, name: str) -> bool:
        """Remove a tag; its manifest stays."""
        return bool(
            await self._database.execute(
                "DELETE FROM tag WHERE registry = ? AND repository = ? AND name = ?", (registry, repository, name)
            )
        )

    # Uploads.

    def upload(self, session: str) -> Upload | None:
        """An upload session."""
        rows = self._database.read("SELECT * FROM upload WHERE session = ?", (session,))
        return Upload(*rows[0]) if rows else None

    async def put_upload(self, upload: Upload) -> None:
        """Note a session."""
        await self._database.execute("INSERT INTO upload VALUES (?, ?, ?, ?, ?)", msgspec.structs.astuple(upload))

    async def remove_upload(self, session: str) -> None:
        """Forget a session."""
        await self._database.execute("DELETE FROM upload WHERE session = ?", (session,))


def _touch(connection: sqlite3.Connection, registry: str, repository: str) -> None:
    now = clock.rfc3339_micro()
    connection.execute(
        "INSERT INTO repository VALUES (?, ?, ?, ?) ON CONFLICT (registry, name) DO UPDATE SET updated = excluded.updated",
        (registry, repository, now, now),
    )


def _manifest(row: Sequence[Any]) -> Manifest:
    digest, media_type, body, subject, artifact_type, annotations, created = row
    return Manifest(digest, media_type, body, subject, artifact_type, msgspec.json.decode(annotations), created)

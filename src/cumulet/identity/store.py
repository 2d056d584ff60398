"""The directory's state: applications, service principals, credentials, roles and signing keys, in one SQLite file."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TypeVar

import msgspec

from cumulet.common.database import Database
from cumulet.common.rbac import BUILT_IN_ROLES, RoleAssignment, RoleDefinition

_MIGRATIONS = [
    """
    CREATE TABLE application (
        id TEXT PRIMARY KEY, app_id TEXT NOT NULL UNIQUE, display_name TEXT NOT NULL, created TEXT NOT NULL
    );
    CREATE TABLE principal (
        id TEXT PRIMARY KEY,
        app_id TEXT NOT NULL UNIQUE REFERENCES application (app_id) ON DELETE CASCADE,
        display_name TEXT NOT NULL
    );
    CREATE TABLE secret (
        key_id TEXT PRIMARY KEY,
        application_id TEXT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
        display_name TEXT, hint TEXT NOT NULL, hash TEXT NOT NULL, starts TEXT NOT NULL, ends TEXT NOT NULL
    );
    CREATE TABLE certificate (
        key_id TEXT PRIMARY KEY,
        application_id TEXT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
        thumbprint TEXT NOT NULL, pem TEXT NOT NULL, starts TEXT NOT NULL, ends TEXT NOT NULL
    );
    CREATE TABLE role_definition (name TEXT PRIMARY KEY, resource BLOB NOT NULL);
    CREATE TABLE role_assignment (
        name TEXT PRIMARY KEY, principal_id TEXT NOT NULL, role TEXT NOT NULL, scope TEXT NOT NULL
    );
    CREATE INDEX role_assignment_principal ON role_assignment (principal_id);
    CREATE TABLE signing_key (kid TEXT PRIMARY KEY, pem TEXT NOT NULL, created TEXT NOT NULL);
    """,
    """
    ALTER TABLE role_assignment ADD COLUMN condition TEXT NOT NULL DEFAULT '';
    ALTER TABLE role_assignment ADD COLUMN description TEXT NOT NULL DEFAULT '';
    ALTER TABLE role_assignment ADD COLUMN created TEXT NOT NULL DEFAULT '';
    ALTER TABLE role_assignment ADD COLUMN created_by TEXT NOT NULL DEFAULT '';
    ALTER TABLE signing_key RENAME COLUMN created TO starts;
    ALTER TABLE secret ADD COLUMN principal_id TEXT REFERENCES principal (id) ON DELETE CASCADE;
    ALTER TABLE certificate ADD COLUMN principal_id TEXT REFERENCES principal (id) ON DELETE CASCADE;
    CREATE INDEX secret_of_application ON secret (application_id);
    CREATE INDEX certificate_of_application ON certificate (application_id);
    CREATE UNIQUE INDEX role_assignment_once ON role_assignment (principal_id, role, scope COLLATE NOCASE);
    CREATE INDEX role_assignment_role ON role_assignment (role);
    CREATE TABLE managed_identity (
        key TEXT PRIMARY KEY, id TEXT NOT NULL, location TEXT NOT NULL, tags BLOB NOT NULL,
        app_id TEXT NOT NULL UNIQUE REFERENCES application (app_id) ON DELETE CASCADE
    );
    """,
    """
    CREATE TABLE assertion (id BLOB PRIMARY KEY, ends INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX assertion_ends ON assertion (ends);
    """,
    """
    CREATE TABLE federated_credential (
        id TEXT PRIMARY KEY,
        app_id TEXT NOT NULL REFERENCES application (app_id) ON DELETE CASCADE,
        name TEXT NOT NULL, issuer TEXT NOT NULL, subject TEXT NOT NULL, audience TEXT NOT NULL,
        description TEXT
    );
    CREATE UNIQUE INDEX federated_credential_name ON federated_credential (app_id, name COLLATE NOCASE);
    CREATE UNIQUE INDEX federated_credential_once ON federated_credential (app_id, issuer, subject);
    """,
]


class Application(msgspec.Struct, frozen=True):
    """An application registration; `app_id` is its client id."""

    id: str
    app_id: str
    display_name: str
    created: str


class Principal(msgspec.Struct, frozen=True):
    """The service principal of an application in the tenant; role assignments refer to its `id`."""

    id: str
    app_id: str
    display_name: str


class Secret(msgspec.Struct, frozen=True):
    """A client secret: its hash, its first three characters (`hint`), and its validity period in RFC 3339.

    `principal_id` is set if the secret belongs to the service principal and not to the application.
    """

    key_id: str
    application_id: str
    display_name: str | None
    hint: str
    hash: str
    starts: str
    ends: str
    principal_id: str | None = None


class Certificate(msgspec.Struct, frozen=True):
    """A certificate whose key signs client assertions; the thumbprint is base64url of its SHA-1.

    `principal_id` is set if the certificate belongs to the service principal and not to the application.
    """

    key_id: str
    application_id: str
    thumbprint: str
    pem: str
    starts: str
    ends: str
    principal_id: str | None = None


class ManagedIdentity(msgspec.Struct, frozen=True):
    """A user-assigned managed identity: a principal without a credential, stored as the resource `id`."""

    key: str
    id: str
    location: str
    tags: dict[str, str]
    app_id: str


class FederatedCredential(msgspec.Struct, frozen=True):
    """The trust of a client in an external issuer: its tokens for `subject` and `audience` authenticate the client.

    A client has one credential of a `name`, and one of an issuer and subject.
    """

    id: str
    app_id: str
    name: str
    issuer: str
    subject: str
    audience: str
    description: str | None = None


Record = Application | Principal | Secret | Certificate | RoleAssignment | ManagedIdentity | FederatedCredential
R = TypeVar("R", Application, Principal, Secret, Certificate, RoleAssignment, ManagedIdentity, FederatedCredential)


class Directory:
    """Reads and durable writes of the state. Reads are indexed look-ups on the caller's thread."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _MIGRATIONS)

    def open(self) -> None:
        """Open the file."""
        self._database.open()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def applications(self, column: str = "", value: str = "") -> list[Application]:
        """Return the applications whose `id` or `app_id` is `value`, or all, without those of managed identities."""
        return self._select(Application, column, value, "app_id NOT IN (SELECT app_id FROM managed_identity)")

    def principals(self, column: str = "", value: str = "") -> list[Principal]:
        """Return the principals whose `id` or `app_id` is `value`, or all."""
        return self._select(Principal, column, value)

    def managed_identities(self, column: str = "", value: str = "") -> list[ManagedIdentity]:
        """Return the identities whose `key` (the id in lower case) or `app_id` is `value`, or all."""
        return self._select(ManagedIdentity, column, value)

    def secrets(self, application_id: str) -> list[Secret]:
        """Return the secrets of an application and of its service principal."""
        return self._select(Secret, "application_id", application_id)

    def certificates(self, application_id: str) -> list[Certificate]:
        """Return the certificates of an application and of its service principal."""
        return self._select(Certificate, "application_id", application_id)

    def federated_credentials(self, app_id: str) -> list[FederatedCredential]:
        """Return the federated credentials of a client, which may be a managed identity."""
        return self._select(FederatedCredential, "app_id", app_id)

    def signing_keys(self) -> list[tuple[str, str, str]]:
        """Return every signing key as (kid, PEM, the time from which it signs), the newest first."""
        return self._database.read("SELECT kid, pem, starts FROM signing_key ORDER BY starts DESC, kid")

    def role_definitions(self) -> dict[str, RoleDefinition]:
        """Return the built-in and the custom roles, by GUID."""
        custom = (
            msgspec.json.decode(resource, type=RoleDefinition)
            for (resource,) in self._database.read("SELECT resource FROM role_definition")
        )
        return {**BUILT_IN_ROLES, **{role.name: role for role in custom}}

    def role_assignments(self, column: str = "", value: str = "") -> list[RoleAssignment]:
        """Return the assignments whose `name`, `principal_id` or `role` is `value`, or all."""
        return self._select(RoleAssignment, column, value)

    async def add(self, *records: Record) -> None:
        """Add records in one transaction. Raises `sqlite3.IntegrityError` if one of them exists."""

        def job(connection: sqlite3.Connection) -> None:
            for record in records:
                _insert(connection, record)

        await self._database.write(job)

    async def put(
        self, record: Application | Principal | RoleAssignment | ManagedIdentity | FederatedCredential
    ) -> None:
        """Change an existing record. Records that refer to it stay. Raises `sqlite3.IntegrityError`."""
        (key, *columns), (first, *rest) = record.__struct_fields__, _values(record)
        changes = ", ".join(f"{column} = ?" for column in columns)
        sql = f"UPDATE {_TABLES[type(record)]} SET {changes} WHERE {key} = ?"  # noqa: S608
        await self._database.execute(sql, (*rest, first))

    async def use_assertion(self, id_: bytes, ends: int, now: int) -> bool:
        """Record the use of a client assertion until it expires. Returns whether it was the first use.

        Times are in seconds since 1970. Deletes the records of expired assertions.
        """

        def job(connection: sqlite3.Connection) -> bool:
            connection.execute("DELETE FROM assertion WHERE ends < ?", (now,))
            return connection.execute("INSERT OR IGNORE INTO assertion VALUES (?, ?)", (id_, ends)).rowcount == 1

        return await self._database.write(job)

    async def remove_secret(self, key_id: str) -> None:
        """Delete a secret."""
        await self._database.execute("DELETE FROM secret WHERE key_id = ?", (key_id,))

    async def remove_federated_credential(self, id_: str) -> None:
        """Delete a federated credential."""
        await self._database.execute("DELETE FROM federated_credential WHERE id = ?", (id_,))

    async def remove_role_definition(self, name: str) -> None:
        """Delete a custom role."""
        await self._database.execute("DELETE FROM role_definition WHERE name = ?", (name,))

    async def remove_role_assignment(self, name: str) -> None:
        """Delete a role assignment."""
        await self._database.execute("DELETE FROM role_assignment WHERE name = ?", (name,))

    async def remove_application(self, app_id: str) -> None:
        """Delete an application with its principal, its credentials and its role assignments."""

        def job(connection: sqlite3.Connection) -> None:
            for (principal_id,) in connection.execute(
                "SELECT id FROM principal WHERE app_id = ?", (app_id,)
            ).fetchall():
                _remove_principal(connection, principal_id)
            connection.execute("DELETE FROM application WHERE app_id = ?", (app_id,))

        await self._database.write(job)

    async def remove_principal(self, principal_id: str) -> None:
        """Delete a principal with its role assignments."""
        await self._database.write(lambda connection: _remove_principal(connection, principal_id))

    async def replace_certificates(self, old: list[Certificate], new: list[Certificate]) -> None:
        """Replace certificates by others. Raises `sqlite3.IntegrityError` if a `key_id` is in use."""

        def job(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "DELETE FROM certificate WHERE key_id = ?", [(certificate.key_id,) for certificate in old]
            )
            for certificate in new:
                _insert(connection, certificate)

        await self._database.write(job)

    async def put_role_definition(self, role: RoleDefinition) -> None:
        """Add or replace a custom role."""
        await self._database.execute(
            "INSERT OR REPLACE INTO role_definition VALUES (?, ?)", (role.name, msgspec.json.encode(role))
        )

    async def change_signing_keys(self, add: tuple[str, str, str] | None, remove: list[str]) -> None:
        """Add a signing key as (kid, PEM, the time from which it signs), and delete others by their kid."""

        def job(connection: sqlite3.Connection) -> None:
            if add is not None:
                connection.execute("INSERT INTO signing_key VALUES (?, ?, ?)", add)
            connection.executemany("DELETE FROM signing_key WHERE kid = ?", [(kid,) for kid in remove])

        await self._database.write(job)

    def _select(self, kind: type[R], column: str, value: str, condition: str = "1") -> list[R]:
        sql = f"SELECT {_columns(kind)} FROM {_TABLES[kind]} WHERE {condition}"  # noqa: S608
        if column:
            rows = self._database.read(f"{sql} AND {column} = ? ORDER BY rowid", (value,))
        else:
            rows = self._database.read(f"{sql} ORDER BY rowid")
        if kind is ManagedIdentity:
            rows = [(key, id_, place, msgspec.json.decode(tags), app_id) for key, id_, place, tags, app_id in rows]
        return [kind(*row) for row in rows]


def _insert(connection: sqlite3.Connection, record: Record) -> None:
    kind, values = type(record), _values(record)
    places = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO {_TABLES[kind]} ({_columns(kind)}) VALUES ({places})", values)  # noqa: S608


def _remove_principal(connection: sqlite3.Connection, principal_id: str) -> None:
    connection.execute("DELETE FROM role_assignment WHERE principal_id = ?", (principal_id,))
    connection.execute("DELETE FROM principal WHERE id = ?", (principal_id,))


def _columns(kind: type[Record]) -> str:
    """Return the columns of a table, which have the names of the record's fields."""
    return ", ".join(kind.__struct_fields__)


def _values(record: Record) -> list[object]:
    return [
        msgspec.json.encode(value) if isinstance(value, dict) else value for value in msgspec.structs.astuple(record)
    ]


_TABLES: dict[type, str] = {
    Application: "application",
    Principal: "principal",
    Secret: "secret",
    Certificate: "certificate",
    RoleAssignment: "role_assignment",
    ManagedIdentity: "managed_identity",
    FederatedCredential: "federated_credential",
}

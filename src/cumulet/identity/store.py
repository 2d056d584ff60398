"""The directory's state: applications, service principals, secrets, roles and signing keys, in one SQL file."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

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
    """
]


class Application(msgspec.Struct, frozen=True):
    """An application registration; `app_id` is what clients call the client id."""

    id: str
    app_id: str
    display_name: str
    created: str


class Principal(msgspec.Struct, frozen=True):
    """The service principal of an application in the tenant; `id` is what roles are given to."""

    id: str
    app_id: str
    display_name: str


class Secret(msgspec.Struct, frozen=True):
    """A client secret: its hash, the three characters that remind of it, and its life in RFC 3339."""

    key_id: str
    application_id: str
    display_name: str | None
    hint: str
    hash: str
    starts: str
    ends: str


class Certificate(msgspec.Struct, frozen=True):
    """A certificate that an application may sign assertions with; the thumbprint is base64url of its SHA-1."""

    key_id: str
    application_id: str
    thumbprint: str
    pem: str
    starts: str
    ends: str


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
        """Those whose `id`, `app_id` or `display_name` is `value`, or all."""
        return [Application(*row) for row in self._select("application", column, value)]

    def principals(self, column: str = "", value: str = "") -> list[Principal]:
        """Those whose `id`, `app_id` or `display_name` is `value`, or all."""
        return [Principal(*row) for row in self._select("principal", column, value)]

    def secrets(self, application_id: str) -> list[Secret]:
        """The secrets of an application."""
        return [Secret(*row) for row in self._select("secret", "application_id", application_id)]

    def certificates(self, application_id: str) -> list[Certificate]:
        """The certificates of an application."""
        return [Certificate(*row) for row in self._select("certificate", "application_id", application_id)]

    def signing_keys(self) -> list[tuple[str, str, str]]:
        """(kid, PEM, created) of every signing key, the newest first."""
        return self._database.read("SELECT kid, pem, created FROM signing_key ORDER BY created DESC, kid")

    def role_definitions(self) -> dict[str, RoleDefinition]:
        """The built-in roles and the custom ones, by GUID."""
        custom = (
            msgspec.json.decode(resource, type=RoleDefinition)
            for (resource,) in self._database.read("SELECT resource FROM role_definition")
        )
        return {**BUILT_IN_ROLES, **{role.name: role for role in custom}}

    def role_assignments(self, column: str = "", value: str = "") -> list[RoleAssignment]:
        """Those whose `name` or `principal_id` is `value`, or all."""
        return [RoleAssignment(*row) for row in self._select("role_assignment", column, value)]

    async def add(self, *records: Application | Principal | Secret | Certificate | RoleAssignment) -> None:
        """Add records in one transaction. Raises `sqlite3.IntegrityError` where one is there already."""

        def job(connection: sqlite3.Connection) -> None:
            for record in records:
                values = msgspec.structs.astuple(record)
                places = ", ".join("?" * len(values))
                connection.execute(f"INSERT INTO {_TABLES[type(record)]} VALUES ({places})", values)  # noqa: S608

        await self._database.write(job)

    async def remove(self, table: str, column: str, value: str) -> int:
        """Delete the rows of a table of ours with that value, and what hangs on them; how many."""
        return await self._database.execute(f"DELETE FROM {table} WHERE {column} = ?", (value,))  # noqa: S608

    async def put_role_definition(self, role: RoleDefinition) -> None:
        """Add or replace a custom role."""
        await self._database.execute(
            "INSERT OR REPLACE INTO role_definition VALUES (?, ?)", (role.name, msgspec.json.encode(role))
        )

    async def add_signing_key(self, kid: str, pem: str, created: str) -> None:
        """Add a signing key, which is used from now on."""
        await self._database.execute("INSERT INTO signing_key VALUES (?, ?, ?)", (kid, pem, created))

    def _select(self, table: str, column: str, value: str) -> list[Any]:
        if not column:
            return self._database.read(f"SELECT * FROM {table} ORDER BY rowid")  # noqa: S608
        return self._database.read(f"SELECT * FROM {table} WHERE {column} = ? ORDER BY rowid", (value,))  # noqa: S608


_TABLES: dict[type, str] = {
    Application: "application",
    Principal: "principal",
    Secret: "secret",
    Certificate: "certificate",
    RoleAssignment: "role_assignment",
}

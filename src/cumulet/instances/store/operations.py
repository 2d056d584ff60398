"""The long-running operations on container groups, on disk (Resource Provider Contract, "Asynchronous Operations")."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import NamedTuple

from cumulet.common import clock
from cumulet.common.database import Database

#: An operation is kept for a day after its end.
_KEPT = timedelta(days=1)


class Operation(NamedTuple):
    """An operation on the group `uid`; `code` is that of its error, and times are RFC 3339."""

    id: str
    uid: str
    started: str
    ended: str | None
    code: str | None
    message: str | None

    @property
    def status(self) -> str:
        """`InProgress`, `Succeeded`, `Failed` or `Canceled`."""
        if self.ended is None:
            return "InProgress"
        return "Succeeded" if self.code is None else "Canceled" if self.code == "OperationPreempted" else "Failed"


class Operations:
    """Reads and writes operations; a change is durable when its method returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, uid: str) -> str:
        """Return the id of a new operation on a group, which cannot be guessed. Operations that ended long ago go."""
        operation, now = str(uuid.uuid4()), clock.now()
        await self._database.execute("DELETE FROM operation WHERE ended < ?", (clock.rfc3339_micro(now - _KEPT),))
        await self._database.execute(
            "INSERT INTO operation (id, uid, started) VALUES (?, ?, ?)", (operation, uid, clock.rfc3339_micro(now))
        )
        return operation

    async def end(self, operation: str, code: str | None = None, message: str | None = None) -> None:
        """End an operation, with an error if there is a code; a second call has no effect."""
        await self._database.execute(
            "UPDATE operation SET ended = ?, code = ?, message = ? WHERE id = ? AND ended IS NULL",
            (clock.rfc3339_micro(), code, message, operation),
        )

    async def end_all(self, uid: str) -> None:
        """End the operations on a group that is gone."""
        await self._database.execute(
            "UPDATE operation SET ended = ? WHERE uid = ? AND ended IS NULL", (clock.rfc3339_micro(), uid)
        )

    def find(self, operation: str) -> Operation | None:
        """Return an operation."""
        for row in self._database.read("SELECT * FROM operation WHERE id = ?", (operation,)):
            return Operation(*row)
        return None

    def running(self) -> list[Operation]:
        """Return the operations that have not ended."""
        return [Operation(*row) for row in self._database.read("SELECT * FROM operation WHERE ended IS NULL")]

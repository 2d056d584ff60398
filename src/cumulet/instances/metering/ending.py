"""The moment when `cumulet down` ended the containers, for the bill: the room does not run then."""

from __future__ import annotations

from pathlib import Path

from cumulet.common import clock


def ended_file(folder: Path) -> Path:
    """Return the file with the moment, in the folder of the room."""
    return folder / "ended"


def record_end(folder: Path) -> None:
    """Write that the containers have ended now."""
    ended_file(folder).write_text(clock.rfc3339_micro())

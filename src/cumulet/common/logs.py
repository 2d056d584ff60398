"""Structured logs: one JSON object a line, with the room's name, never with a secret in it."""

from __future__ import annotations

import logging
import logging.handlers
import sys
from pathlib import Path

import msgspec

from cumulet.common import clock

#: What `logging` itself puts on every record; anything else came in by `extra=` and belongs in the line.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """`{"time", "level", "room", "logger", "message", …extra, "exception"}`."""

    def __init__(self, room: str) -> None:
        super().__init__()
        self._room = room

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": clock.rfc3339_micro(),
            "level": record.levelname.lower(),
            "room": self._room,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def configure(room: str, file: Path | None, level: int = logging.INFO) -> None:
    """Send this process's logs to `file` (rotated at 10 MB, three kept), or to standard error where it is `None`."""
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = logging.handlers.RotatingFileHandler(file, maxBytes=10_000_000, backupCount=3)
    handler.setFormatter(JsonFormatter(room))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)

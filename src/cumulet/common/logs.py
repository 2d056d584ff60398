"""Structured logs: one JSON object a line, with the room's name, never with a secret in it."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import logging.handlers
import sys
from pathlib import Path

import msgspec
from aiohttp.http import HttpProcessingError

from cumulet.common import clock
from cumulet.common.ascii import fold
from cumulet.common.config import private_folder

#: What `logging` itself puts on every record; anything else came in by `extra=` and belongs in the line.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_ENCODER = msgspec.json.Encoder(enc_hook=str)


class AccessLine(msgspec.Struct, frozen=True):
    """One request: when it came (seconds since 1970), its method and path, and what became of it.

    `bytes` is the length of the answer's body; where `complete` is false the other end did not take all of it.
    """

    time: float
    message: str
    status: int
    seconds: float
    bytes: int
    complete: bool
    principal: str
    scope: str
    host: str
    client: str
    user_agent: str


class AccessLog:
    """Lines that are too many to be handled one by one: they are collected, and written together soon after.

    They go where this process's log goes. What was added is written by `close` at the latest.
    """

    _SECONDS = 0.1
    _MOST = 1000

    def __init__(self, room: str) -> None:
        self._room = room
        self._lines: list[AccessLine] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, line: AccessLine) -> None:
        """Write this soon. On the event loop's thread."""
        self._lines.append(line)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._SECONDS, self._write)
        elif len(self._lines) >= self._MOST:
            self._write()

    def close(self) -> None:
        """Write what is left."""
        if self._lines:
            self._write()

    def _write(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        text = "\n".join(_encode(self._fields(line)) for line in lines)
        record = logging.makeLogRecord({"levelno": logging.INFO, "name": "access", "formatted": text})
        logging.getLogger("access").handle(record)

    def _fields(self, line: AccessLine) -> dict[str, object]:
        fields = msgspec.structs.asdict(line)
        fields["time"] = dt.datetime.fromtimestamp(line.time, dt.UTC)
        fields["seconds"] = round(line.seconds, 6)
        return {"level": "info", "room": self._room, "logger": "access", **fields}


class JsonFormatter(logging.Formatter):
    """`{"time", "level", "room", "logger", "message", …extra, "exception"}`."""

    def __init__(self, room: str) -> None:
        super().__init__()
        self._room = room

    def format(self, record: logging.LogRecord) -> str:
        formatted: str | None = getattr(record, "formatted", None)
        if formatted is not None:
            return formatted
        line: dict[str, object] = {
            "time": clock.rfc3339_micro(),
            "level": fold(record.levelname),
            "room": self._room,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line)


def _without_detail(record: logging.LogRecord) -> bool:
    """Of what is not even HTTP note no more than that: its error quotes headers, and so secrets."""
    if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError):
        record.levelno, record.levelname = logging.INFO, "INFO"
        record.msg, record.args = "%s; it was %s", (record.getMessage(), type(record.exc_info[1]).__name__)
        record.exc_info = None
    return True


def _encode(line: dict[str, object]) -> str:
    """One line of JSON. What is no text, such as bytes of a header that are not UTF-8, is escaped."""
    try:
        return _ENCODER.encode(line).decode()
    except UnicodeEncodeError:
        return json.dumps(line, default=str)


def configure(room: str, file: Path | None, level: int = logging.INFO) -> None:
    """Send this process's logs to `file` (rotated at 10 MB, three kept), or to standard error where it is `None`."""
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        private_folder(file.parent)
        handler = logging.handlers.RotatingFileHandler(file, maxBytes=10_000_000, backupCount=3)
    handler.setFormatter(JsonFormatter(room))
    handler.addFilter(_without_detail)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)

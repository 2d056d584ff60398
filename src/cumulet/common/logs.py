"""Structured logs: one JSON object a line, with the room's name and without secrets."""

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
from cumulet.common.private_files import private_folder

#: The attributes that `logging` sets on every record. All others come from `extra=` and are written.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_ENCODER = msgspec.json.Encoder(enc_hook=str)


class AccessLine(msgspec.Struct, frozen=True):
    """One request: its time in seconds since 1970, its method and path (`message`), and its outcome.

    `bytes` is the length of the response's body. If `complete` is false, the client did not receive all of it.
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
    """The access log, written in batches because single lines would cost too much.

    Its lines go to this process's log. `close` writes the last batch.
    """

    _SECONDS = 0.1
    _MOST = 1000

    def __init__(self, room: str) -> None:
        self._room = room
        self._lines: list[AccessLine] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, line: AccessLine) -> None:
        """Add a line to the next batch. Call this on the event loop's thread."""
        self._lines.append(line)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._SECONDS, self._write)
        elif len(self._lines) >= self._MOST:
            self._write()

    def close(self) -> None:
        """Write the last batch."""
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
    """Remove the error from the record of a malformed HTTP request, because it quotes headers, and so secrets."""
    if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError):
        record.levelno, record.levelname = logging.INFO, "INFO"
        record.msg, record.args = "%s; it was %s", (record.getMessage(), type(record.exc_info[1]).__name__)
        record.exc_info = None
    return True


def _encode(line: dict[str, object]) -> str:
    """Return one line of JSON. Bytes that are not UTF-8, as in some headers, are escaped."""
    try:
        return _ENCODER.encode(line).decode()
    except UnicodeEncodeError:
        return json.dumps(line, default=str)


def configure(room: str, file: Path | None, level: int = logging.INFO) -> None:
    """Write this process's logs to `file` (rotated at 10 MB, three kept), or to standard error if it is `None`."""
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

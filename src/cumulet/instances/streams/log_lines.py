"""The lines of a log in the kubelet's format, which conmon writes: time, stream, `F` or `P`, text.

A line of output that is long, or that a process has not ended yet, is written as several lines with the tag `P`; the tag `F`
ends it. The text of the output is kept byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from cumulet.common.ascii import is_digits

#: What precedes the text of a line; of a part also its text, because its line feed is not of the output.
_HEAD = re.compile(rb"^[^ \n]+ [^ \n]+ (?:F |P ([^\n]*)\n)", re.MULTILINE)
_LINE = re.compile(rb"([^ \n]+) ([^ \n]+) ([FP]) ([^\n]*)\n")


class Line(NamedTuple):
    """A line of the log."""

    time: bytes
    stream: bytes
    part: bool
    text: bytes


def texts(raw: bytes) -> bytes:
    """Return the text of whole lines of a log."""
    return _HEAD.sub(rb"\1", raw)


def parse(raw: bytes) -> Iterator[Line]:
    """Yield the whole lines of a log; the text of a line that is not a part ends with a line feed."""
    for time, stream, tag, text in _LINE.findall(raw):
        part = tag == b"P"
        yield Line(time, stream, part, text if part else text + b"\n")


def is_part(line: bytes) -> bool:
    """Return whether a raw line is continued by the next one."""
    return line.split(b" ", 3)[2:3] == [b"P"]


class Selection:
    """Turns lines into the output that a query selects; it remembers a line that has not ended yet."""

    def __init__(self, since: datetime | None, *, timestamps: bool) -> None:
        self._since = since
        self._timestamps = timestamps
        self._continues = False
        self._selected = True

    def shown(self, raw: bytes) -> bytes:
        """Return the output of whole lines of the log, with the time of each line of output if selected."""
        if self._since is None and not self._timestamps:
            return texts(raw)
        output: list[bytes] = []
        for line in parse(raw):
            if not self._continues:
                self._selected = self._since is None or moment(line.time) >= self._since
                if self._selected and self._timestamps:
                    output += (line.time.replace(b"+00:00", b"Z"), b" ")
            if self._selected:
                output.append(line.text)
            self._continues = line.part
        return b"".join(output)


def moment(text: bytes) -> datetime:
    """Parse a time of conmon, which has nanoseconds, to the microseconds of a `datetime`."""
    decoded = text.decode(errors="replace")
    head, _, tail = decoded.partition(".")
    digits = "".join(char for char in tail[:9] if is_digits(char))
    zone = tail[len(digits) :] or "Z"
    try:
        return datetime.fromisoformat(f"{head}.{digits[:6]:0<6}{zone}").astimezone(UTC)
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)

"""Timestamps and durations (cel-go's `common/types`, RFC 3339, Go's `time`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import ClassVar

from cumulet.kube.cel.errors import CelError
from cumulet.kube.cel.opaque import Opaque

_SECOND = 10**9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = -62135596800 * _SECOND, 253402300800 * _SECOND - 1
_UNITS = {
    "ns": 1,
    "us": 1000,
    "µs": 1000,
    "μs": 1000,
    "ms": 10**6,
    "s": _SECOND,
    "m": 60 * _SECOND,
    "h": 3600 * _SECOND,
}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,30}))?(Z|z|[+-][0-9]{2}:[0-9]{2})"
)
_INT_MOST, _INT_LEAST = 2**63 - 1, -(2**63)


@dataclass(frozen=True, slots=True, order=True)
class Timestamp(Opaque):
    """A moment, in nanoseconds since 1970."""

    kind: ClassVar[str] = "timestamp"
    ns: int

    @classmethod
    def of(cls, ns: int) -> Timestamp:
        """Return the moment. Raises `CelError` outside the years 1 to 9999."""
        if not _FIRST <= ns <= _LAST:
            raise CelError("timestamp overflow")
        return cls(ns)

    @classmethod
    def parse(cls, text: str) -> Timestamp:
        """Parse RFC 3339. Raises `CelError`."""
        match = _RFC3339.fullmatch(text)
        if match is not None:
            *numbers, fraction, zone = match.groups()
            try:
                year, month, day, hour, minute, second = map(int, numbers)
                made = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
                offset = 0
                if zone not in "Zz":
                    hours, minutes = int(zone[1:3]), int(zone[4:])
                    if hours > 23 or minutes > 59:
                        raise ValueError
                    offset = (hours * 60 + minutes) * (-60 if zone[0] == "-" else 60)
                seconds = (made - _EPOCH) // timedelta(seconds=1) - offset
                return cls.of(seconds * _SECOND + int((fraction or "0").ljust(9, "0")[:9]))
            except ValueError:
                pass
        raise CelError(f'parsing time "{text[:100]}" as "2006-01-02T15:04:05Z07:00": cannot parse it')

    @classmethod
    def of_date(cls, text: str) -> Timestamp:
        """Parse a full date of RFC 3339. Raises `CelError`."""
        return cls.parse(f"{text}T00:00:00Z")

    def at(self, zone: str = "") -> datetime:
        """Return the moment in a time zone: a name of the database, or `+hh:mm`. Raises `CelError`."""
        return (_EPOCH + timedelta(microseconds=self.ns // 1000)).astimezone(_zone(zone))

    def __str__(self) -> str:
        seconds, rest = divmod(self.ns, _SECOND)
        whole = (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()
        return f"{whole}{_fraction(rest)}Z"


def _fraction(ns: int) -> str:
    return f".{ns:09d}".rstrip("0") if ns else ""


def _zone(name: str) -> tzinfo:
    if not name or name == "UTC":
        return UTC
    if match := re.fullmatch(r"([+-]?)([0-9]{2}):([0-9]{2})", name):
        minutes = int(match[2]) * 60 + int(match[3])
        if minutes < 24 * 60:
            return timezone(timedelta(minutes=-minutes if match[1] == "-" else minutes))
    elif re.fullmatch(r"[A-Za-z0-9_+-]{1,40}(?:/[A-Za-z0-9_+-]{1,40}){0,2}", name):
        import zoneinfo

        try:
            return zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            pass
    raise CelError(f"unknown time zone {name[:100]}")


@dataclass(frozen=True, slots=True, order=True)
class Duration(Opaque):
    """A length of time, in nanoseconds."""

    kind: ClassVar[str] = "duration"
    ns: int

    @classmethod
    def of(cls, ns: int) -> Duration:
        """Return the duration. Raises `CelError` for more than 64 bits."""
        if not _INT_LEAST <= ns <= _INT_MOST:
            raise CelError("duration overflow")
        return cls(ns)

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Parse Go's format, `1h2m3.5s`. Raises `CelError`."""
        sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
        if rest == "0":
            return cls(0)
        total, position = 0, 0
        for match in _DURATION.finditer(rest[:200]):
            if match.start() != position:
                break
            whole, _, fraction = match[1].partition(".")
            unit = _UNITS[match[2]]
            total += int(whole or "0") * unit + int(fraction[:18] or "0") * unit // 10 ** len(fraction[:18])
            position = match.end()
        if not position or position != len(rest):
            raise CelError(f'time: invalid duration "{text[:100]}"')
        return cls.of(sign * total)

    def __str__(self) -> str:
        """In seconds, in the language's notation."""
        seconds, rest = divmod(abs(self.ns), _SECOND)
        return f"{'-' if self.ns < 0 else ''}{seconds}{_fraction(rest)}s"

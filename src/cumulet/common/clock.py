"""Times in the form of the protocols: RFC 3339 in UTC."""

from __future__ import annotations

import functools
import time
from datetime import UTC, datetime


def now() -> datetime:
    """Return the current time, in UTC."""
    return datetime.now(UTC)


def rfc3339(moment: datetime | None = None) -> str:
    """Format a time, by default the current one, in seconds as `metav1.Time` does: `2026-11-23T19:50:21Z`."""
    return _second(int(time.time())) if moment is None else _in_utc(moment, "seconds")


@functools.lru_cache(1)
def _second(epoch: int) -> str:
    return _in_utc(datetime.fromtimestamp(epoch, UTC), "seconds")


def _in_utc(moment: datetime, precision: str) -> str:
    return moment.astimezone(UTC).isoformat(timespec=precision).removesuffix("+00:00") + "Z"


def rfc3339_micro(moment: datetime | None = None) -> str:
    """Format a time in microseconds, as `metav1.MicroTime` and Azure do: `2026-11-23T19:50:21.123456Z`."""
    return _in_utc(moment or now(), "microseconds")


def parse(text: str) -> datetime:
    """Parse RFC 3339 into UTC. Raises `ValueError` for any other text."""
    return datetime.fromisoformat(text).astimezone(UTC)


def from_epoch(seconds: int) -> str:
    """Format seconds since 1970 as RFC 3339."""
    return rfc3339(datetime.fromtimestamp(seconds, UTC))

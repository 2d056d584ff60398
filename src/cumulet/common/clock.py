"""Time as the protocols write it: RFC 3339 in UTC."""

from __future__ import annotations

import functools
import time
from datetime import UTC, datetime


def now() -> datetime:
    """The present moment, in UTC."""
    return datetime.now(UTC)


def rfc3339(moment: datetime | None = None) -> str:
    """Whole seconds, as Kubernetes' `metav1.Time` writes it: `2026-11-23T19:50:21Z`."""
    return _second(int(time.time())) if moment is None else _in_utc(moment, "seconds")


@functools.lru_cache(1)
def _second(epoch: int) -> str:
    return _in_utc(datetime.fromtimestamp(epoch, UTC), "seconds")


def _in_utc(moment: datetime, precision: str) -> str:
    return moment.astimezone(UTC).isoformat(timespec=precision).removesuffix("+00:00") + "Z"


def rfc3339_micro(moment: datetime | None = None) -> str:
    """Microseconds, as Kubernetes' `metav1.MicroTime` and Azure write it: `2026-11-23T19:50:21.123456Z`."""
    return _in_utc(moment or now(), "microseconds")


def parse(text: str) -> datetime:
    """The reverse of both. Raises `ValueError` for anything else."""
    return datetime.fromisoformat(text).astimezone(UTC)


def from_epoch(seconds: int) -> str:
    """RFC 3339 of seconds since 1970."""
    return rfc3339(datetime.fromtimestamp(seconds, UTC))

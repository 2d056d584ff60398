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
    return _second(int(time.time())) if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@functools.lru_cache(1)
def _second(epoch: int) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(moment: datetime | None = None) -> str:
    """Microseconds, as Kubernetes' `metav1.MicroTime` and Azure write it: `2026-11-23T19:50:21.123456Z`."""
    return (moment or now()).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse(text: str) -> datetime:
    """The reverse of both. Raises `ValueError` for anything else."""
    return datetime.fromisoformat(text).astimezone(UTC)


def from_epoch(seconds: int) -> str:
    """RFC 3339 of seconds since 1970."""
    return rfc3339(datetime.fromtimestamp(seconds, UTC))

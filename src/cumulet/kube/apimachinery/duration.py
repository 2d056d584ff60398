"""Durations as kubectl prints them (apimachinery, `duration.HumanDuration`)."""

from __future__ import annotations

from datetime import datetime

from cumulet.common import clock

_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86400, 365 * 86400


def age(moment: str | None, now: datetime) -> str:
    """Return the time since a time stamp, as kubectl prints it."""
    return duration((now - clock.parse(moment)).total_seconds()) if moment else "<unknown>"


def duration(seconds: float) -> str:
    """Return a duration in its two largest useful units: `12s`, `3m20s`, `5h12m`, `2d3h`, `40d`, `2y10d`."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole <= 0:
        return "0s"
    if whole < 2 * _MINUTE:
        return f"{whole}s"
    if whole < 10 * _MINUTE:
        return _two(whole, _MINUTE, "m", 1, "s")
    if whole < 3 * _HOUR:
        return f"{whole // _MINUTE}m"
    if whole < 8 * _HOUR:
        return _two(whole, _HOUR, "h", _MINUTE, "m")
    if whole < 2 * _DAY:
        return f"{whole // _HOUR}h"
    if whole < 8 * _DAY:
        return _two(whole, _DAY, "d", _HOUR, "h")
    if whole < 2 * _YEAR:
        return f"{whole // _DAY}d"
    if whole < 8 * _YEAR:
        return _two(whole, _YEAR, "y", _DAY, "d")
    return f"{whole // _YEAR}y"


def _two(seconds: int, unit: int, name: str, lesser: int, lesser_name: str) -> str:
    rest = seconds % unit // lesser
    return f"{seconds // unit}{name}" + (f"{rest}{lesser_name}" if rest else "")

"""Schedules of cron jobs: five fields, macros such as `@daily`, or `@every 1h30m`, in any time zone.

Follows crontab(5) as upstream's parser (robfig/cron) does. If both the day of the month and the day of the week are
restricted, either of them is enough. Sunday is 0. Names of months and days have three letters.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple

from cumulet.common.ascii import fold, is_digits

_MONTHS = {
    name: number
    for number, name in enumerate(
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1
    )
}
_DAYS = {name: number for number, name in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])}
_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 6, _DAYS),
)
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
#: The longest interval of a schedule: from one 29 February to the next around a year such as 2100.
_YEARS = 9


class Schedule(NamedTuple):
    """A schedule: the values that each field allows, or an interval."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    #: Whether both day fields are restricted, so that either can match.
    either_day: bool
    zone: tzinfo
    every: timedelta | None = None

    def after(self, moment: datetime) -> datetime | None:
        """The first time after `moment`, in UTC. `None` if there is none within `_YEARS` years."""
        if self.every is not None:
            return moment.replace(microsecond=0) + self.every
        # Search by local time. The end handles local times that occur twice or never.
        wall = moment.astimezone(self.zone).replace(tzinfo=None, second=0, microsecond=0) + timedelta(minutes=1)
        limit = wall.year + _YEARS
        while wall.year <= limit:
            if wall.month not in self.months:
                wall = (wall.replace(day=1, hour=0, minute=0) + timedelta(days=32)).replace(day=1)
            elif not self._day(wall):
                wall = wall.replace(hour=0, minute=0) + timedelta(days=1)
            elif wall.hour not in self.hours:
                wall = wall.replace(minute=0) + timedelta(hours=1)
            elif wall.minute not in self.minutes:
                wall += timedelta(minutes=1)
            else:
                time = wall.replace(tzinfo=self.zone).astimezone(UTC)
                exists = time.astimezone(self.zone).replace(tzinfo=None) == wall
                if exists and time > moment:
                    return time
                wall += timedelta(minutes=1)
        return None

    def _day(self, wall: datetime) -> bool:
        month, week = wall.day in self.days, wall.isoweekday() % 7 in self.weekdays
        return (month or week) if self.either_day else (month and week)


def parse(text: str, zone: tzinfo = UTC) -> Schedule:
    """Parse a schedule. Raises `ValueError` with the fault."""
    text = text.strip()
    if text.startswith("@every "):
        return _EVERY._replace(zone=zone, every=_interval(text.removeprefix("@every ")))
    if text.startswith("@"):
        if text not in _NAMED:
            raise ValueError(f"unrecognized descriptor: {text}")
        text = _NAMED[text]
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f"expected exactly 5 fields, found {len(fields)}: [{text}]")
    values = [_field(field, *kind) for field, kind in zip(fields, _FIELDS, strict=True)]
    either = not any(fields[number][0] in "*?" for number in (2, 4))
    minutes, hours, days, months, weekdays = values
    return Schedule(minutes, hours, days, months, weekdays, either, zone)


def _field(text: str, label: str, least: int, most: int, names: dict[str, int]) -> frozenset[int]:
    allowed: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span in ("*", "?"):
            begin, end = least, most
        else:
            begin = _number(first, label, names)
            end = _number(last, label, names) if dash else (most if step else begin)
        width = _number(step, label, {}) if "/" in part else 1
        if begin < least or end > most or begin > end or width < 1:
            raise ValueError(f"{part!r} is not valid for the {label}: from {least} to {most}")
        allowed.update(range(begin, end + 1, width))
    return frozenset(allowed)


def _number(text: str, label: str, names: dict[str, int]) -> int:
    if (name := fold(text)) in names:
        return names[name]
    if not is_digits(text):
        raise ValueError(f"failed to parse {text!r} of the {label}")
    return int(text)


def _interval(text: str) -> timedelta:
    parts = re.findall(r"(\d+(?:\.\d+)?)(h|m|s)", text, re.ASCII)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        raise ValueError(f"failed to parse duration {text!r}")
    return timedelta(seconds=max(1, int(sum(float(number) * _UNITS[unit] for number, unit in parts))))


_NONE: frozenset[int] = frozenset()
_EVERY = Schedule(_NONE, _NONE, _NONE, _NONE, _NONE, False, UTC)

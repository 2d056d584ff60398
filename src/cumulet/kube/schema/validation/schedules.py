"""Validation of cron schedules and time zones (batch, `validateScheduleFormat`, `validateTimeZone`)."""

from __future__ import annotations

import re
import zoneinfo
from typing import NamedTuple

from cumulet.common.ascii import fold
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.schema.validation.field_errors import Causes, invalid, quoted, required


class _Bounds(NamedTuple):
    least: int
    most: int
    names: dict[str, int]


_MONTHS = {
    name: at
    for at, name in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1)
}
_DAYS = {name: at for at, name in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])}
_FIELDS = (
    _Bounds(0, 59, {}),
    _Bounds(0, 23, {}),
    _Bounds(1, 31, {}),
    _Bounds(1, 12, _MONTHS),
    _Bounds(0, 6, _DAYS),
)
_NAMED = frozenset(("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"))
_EVERY = "@every "
_DURATION = re.compile(r"[-+]?(?:0|(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)", re.ASCII)
_ZONE_PART = re.compile(r"[A-Za-z._0-9+-]{1,14}")


def schedule(spec: Object, old: Object | None, field: str) -> Causes:
    """Validate a schedule."""
    text = spec.get("schedule", "")
    if not text:
        yield required(f"{field}.schedule")
        return
    try:
        _parse(text)
    except ValueError as error:
        yield invalid(f"{field}.schedule", text, str(error))
    if "TZ" in text:
        if old is None or "TZ" not in old.get("schedule", ""):
            why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
            yield invalid(f"{field}.schedule", text, why)
        elif spec.get("timeZone") is not None:
            why = "cannot use both timeZone field and TZ or CRON_TZ in schedule"
            yield invalid(f"{field}.schedule", text, why)


def time_zone(name: str | None, field: str) -> Causes:
    """Validate a time zone."""
    if name is None:
        return
    if not name:
        yield invalid(field, name, "timeZone must be nil or non-empty string")
        return
    for part in name.split("/"):
        if part in (".", "..") or part.startswith("-") or not _ZONE_PART.fullmatch(part):
            yield invalid(field, name, f"unknown time zone {name}")
            return
    if fold(name) == "local":
        why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        yield invalid(field, name, why)
    elif not _is_zone(name):
        yield invalid(field, name, f"unknown time zone {name}")


def _is_zone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _parse(text: str) -> None:
    if text.startswith(("TZ=", "CRON_TZ=")):
        zone, space, rest = text.partition(" ")
        zone = zone.partition("=")[2]
        if not space:
            raise ValueError(f"invalid schedule format: runtime error: slice bounds out of range [:{-1}]")
        if zone and not _is_zone(zone):
            raise ValueError(f"provided bad location {zone}: unknown time zone {zone}")
        text = rest.strip()
    if text.startswith("@"):
        _descriptor(text)
        return
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f"expected exactly {len(_FIELDS)} fields, found {len(fields)}: [{' '.join(fields)}]")
    for field, bounds in zip(fields, _FIELDS, strict=True):
        for expression in filter(None, field.split(",")):
            _range(expression, bounds)


def _descriptor(text: str) -> None:
    if text.startswith(_EVERY):
        duration = text.removeprefix(_EVERY)
        if not _DURATION.fullmatch(duration):
            raise ValueError(f"failed to parse duration {text}: time: invalid duration {quoted(duration)}")
    elif text not in _NAMED:
        raise ValueError(f"unrecognized descriptor: {text}")


def _range(expression: str, bounds: _Bounds) -> None:
    parts = expression.split("/")
    limits = parts[0].split("-")
    if limits[0] in ("*", "?"):
        start, end = bounds.least, bounds.most
    else:
        start = end = _number(limits[0], bounds)
        if len(limits) == 2:
            end = _number(limits[1], bounds)
        elif len(limits) > 2:
            raise ValueError(f"too many hyphens: {expression}")
    step = 1
    if len(parts) == 2:
        step = _number(parts[1], None)
        if len(limits) == 1:
            end = bounds.most
    elif len(parts) > 2:
        raise ValueError(f"too many slashes: {expression}")
    if start < bounds.least:
        raise ValueError(f"beginning of range ({start}) below minimum ({bounds.least}): {expression}")
    if end > bounds.most:
        raise ValueError(f"end of range ({end}) above maximum ({bounds.most}): {expression}")
    if start > end:
        raise ValueError(f"beginning of range ({start}) beyond end of range ({end}): {expression}")
    if step == 0:
        raise ValueError(f"step of range should be a positive number: {expression}")


def _number(text: str, bounds: _Bounds | None) -> int:
    if bounds is not None and fold(text) in bounds.names:
        return bounds.names[fold(text)]
    if not re.fullmatch(r"[-+]?[0-9]{1,18}", text):
        raise ValueError(f"failed to parse int from {text}: strconv.Atoi: parsing {quoted(text)}: invalid syntax")
    if int(text) < 0:
        raise ValueError(f"negative number ({int(text)}) not allowed: {text}")
    return int(text)

"""`cumulet cost`: the cost of the container groups, of the past or estimated from manifests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated

import msgspec
import typer

from cumulet.cli.azure import CONTAINER_INSTANCE, Azure, run
from cumulet.cli.output import Format, FormatOption, QueryOption, show
from cumulet.common import clock

_KEYS = ("namespace", "day", "group")
_LABEL = "label="
_AGO = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_WHEN = "RFC 3339 time, date, or duration before now such as 24h."


class _Usage(msgspec.Struct, rename="camel"):
    """A usage record of the provider, as far as it is added up."""

    name: str
    seconds: int
    vcpu_seconds: float
    gb_seconds: float
    cost: str
    currency: str
    start: str = msgspec.field(name="from")
    resource_group: str
    tags: dict[str, str] = {}
    labels: dict[str, str] = {}


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(cost)


def cost(
    by: Annotated[
        str | None, typer.Option(metavar="KEY", help="Add up by namespace, label=KEY, day or group.")
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help=f"Start of the period: {_WHEN}")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help=f"End of the period: {_WHEN}")] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Estimate manifests before they are applied; needs no running room.")
    ] = False,
    filename: Annotated[
        list[str] | None,
        typer.Option(
            "--filename", "-f", metavar="PATH", help="Manifests to estimate: file, folder, or - for standard input."
        ),
    ] = None,
    output: FormatOption = Format.TABLE,
    query: QueryOption = None,
) -> None:
    """Show the seconds, vCPU-seconds, GB-seconds and cost of each container group, and the total."""
    if estimate or filename:
        if not (estimate and filename):
            raise typer.BadParameter("--estimate and --filename go together", param_hint="--estimate")
        if by or since or until:
            raise typer.BadParameter("an estimate has no --by, --since and --until", param_hint="--estimate")
        from cumulet.cli.cost_estimate import estimate as estimated  # other verbs need no manifests

        show(estimated(filename), output, query)
        return
    if by is not None and by not in _KEYS and not (by.startswith(_LABEL) and by != _LABEL):
        raise typer.BadParameter(f"{by!r} is none of {', '.join(_KEYS)} and label=KEY", param_hint="--by")
    period = {name: _moment(text, name) for name, text in (("since", since), ("until", until)) if text is not None}
    if by == "day":
        period["granularity"] = "Daily"

    async def work(azure: Azure) -> list[dict[str, object]]:
        provider = f"Microsoft.ContainerInstance/locations/{azure.config.location}"
        return await azure.items(
            f"{azure.subscription}/providers/{provider}/usageDetails", api_version=CONTAINER_INSTANCE, query=period
        )

    rows = [row.get("properties", row) for row in run(work)]
    usages = [msgspec.convert(row, _Usage) for row in rows]
    if by is not None:
        parts: dict[str, list[_Usage]] = {}
        for usage in usages:
            parts.setdefault(_key(usage, by), []).append(usage)
        rows = [_sum(name, found) for name, found in sorted(parts.items())]
    show([*rows, _sum("Total", usages)], output, query)


def _key(usage: _Usage, by: str) -> str:
    """Return the key that a record is added up by; it is empty for a record without a namespace or label."""
    if by == "day":
        return usage.start[:10]
    if by == "group":
        return usage.name
    if by == "namespace":
        return usage.tags.get("Namespace", "")
    label = by.removeprefix(_LABEL)
    return usage.labels.get(label, usage.tags.get(label, ""))


def _sum(name: str, usages: Sequence[_Usage]) -> Mapping[str, object]:
    return {
        "name": name,
        "seconds": sum(usage.seconds for usage in usages),
        "vcpuSeconds": round(sum(usage.vcpu_seconds for usage in usages), 2),
        "gbSeconds": round(sum(usage.gb_seconds for usage in usages), 2),
        "cost": f"{sum((Decimal(usage.cost) for usage in usages), Decimal(0)):.6f}",
        "currency": usages[0].currency if usages else "",
    }


def _moment(text: str, name: str) -> str:
    """Return a time in RFC 3339. Raises `BadParameter`."""
    if match := _AGO.fullmatch(text):
        return clock.rfc3339_micro(clock.now() - timedelta(**{_UNITS[match[2]]: int(match[1])}))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no {_WHEN.rstrip('.')}", param_hint=f"--{name}") from None
    return clock.rfc3339_micro(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))

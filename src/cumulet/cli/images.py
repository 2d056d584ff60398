"""`cumulet images`: the images on this machine, and their deletion."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from cumulet.cli.azure import CONTAINER_INSTANCE, Azure, run
from cumulet.cli.output import Format, FormatOption, QueryOption, show
from cumulet.common.sizes import human_size

app = typer.Typer(help="List and remove the images that container groups have pulled.")


class _Image(msgspec.Struct, frozen=True, rename="camel"):
    """An image of `cachedImages`, with the extensions of this project."""

    image: str
    digest: str = ""
    size: int = 0
    last_used: str = ""
    groups: int = 0


class _Pull(msgspec.Struct, frozen=True, rename="camel"):
    """A running pull."""

    image: str
    layers: int
    layers_total: int
    bytes: int
    bytes_total: int
    seconds: float


class _Images(msgspec.Struct, frozen=True, rename="camel"):
    value: list[_Image]
    pulls: list[_Pull] = []
    space_reclaimed: int = 0


@app.callback(invoke_without_command=True)
def list_(context: typer.Context, output: FormatOption = Format.TABLE, query: QueryOption = None) -> None:
    """List and remove the images that container groups have pulled. Without a command, list them, and the running pulls."""
    if context.invoked_subcommand is not None:
        return
    found = run(lambda azure: _call(azure, "GET", "cachedImages"))
    rows = [
        {**_row(image), "status": "in use" if image.groups else "unused", "groups": image.groups}
        for image in found.value
    ]
    for pull in found.pulls:
        progress = (
            f"layers {pull.layers} of {pull.layers_total}, {human_size(pull.bytes)} of {human_size(pull.bytes_total)}"
        )
        row = _row(_Image(image=pull.image, size=pull.bytes_total))
        rows.append({**row, "status": f"pulling: {progress}", "groups": 0})
    show(_readable(rows) if output is Format.TABLE else rows, output, query)


@app.command()
def prune(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be removed without removing it.")
    ] = False,
    output: FormatOption = Format.TABLE,
    query: QueryOption = None,
) -> None:
    """Remove all images that no container group uses."""
    found = run(lambda azure: _call(azure, "POST", "pruneCachedImages", {"dryRun": dry_run}))
    rows = [_row(image) for image in found.value]
    if output is not Format.TABLE:
        show({"images": rows, "spaceReclaimed": found.space_reclaimed}, output, query)
        return
    if rows:
        show(_readable(rows), output, query)
    print(f"{'Would reclaim' if dry_run else 'Reclaimed'} {human_size(found.space_reclaimed)}.")


async def _call(azure: Azure, method: str, verb: str, body: object = None) -> _Images:
    path = f"{azure.subscription}/providers/Microsoft.ContainerInstance/locations/{azure.config.location}/{verb}"
    return msgspec.convert(await azure.arm(method, path, body, api_version=CONTAINER_INSTANCE), _Images)


def _row(image: _Image) -> dict[str, object]:
    name, _, _ = image.image.partition("@")
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = name, ""
    return {
        "repository": repository,
        "tag": tag or None,
        "digest": image.digest or None,
        "size": image.size,
        "lastUsed": image.last_used or None,
    }


def _readable(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Return rows for a table: short digests, and sizes in units."""
    return [
        {
            **row,
            "tag": row["tag"] or "<none>",
            "digest": str(row["digest"] or "")[:19],
            "size": human_size(size) if isinstance(size := row["size"], int) else "",
        }
        for row in rows
    ]

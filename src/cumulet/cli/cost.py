"""`cumulet cost`: the cost of the container groups."""

from __future__ import annotations

import typer

from cumulet.cli.azure import CONTAINER_INSTANCE, Azure, run
from cumulet.cli.output import Format, FormatOption, QueryOption, show


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(cost)


def cost(output: FormatOption = Format.TABLE, query: QueryOption = None) -> None:
    """Show the seconds, vCPU-seconds, GB-seconds and cost of each container group."""

    async def work(azure: Azure) -> list[dict[str, object]]:
        provider = f"Microsoft.ContainerInstance/locations/{azure.config.location}"
        return await azure.items(
            f"{azure.subscription}/providers/{provider}/usageDetails", api_version=CONTAINER_INSTANCE
        )

    show([row.get("properties", row) for row in run(work)], output, query)

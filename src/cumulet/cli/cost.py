"""`cumulet cost`: what the container groups cost, from the first pull to the stop."""

from __future__ import annotations

from typing import Any

import typer

from cumulet.cli.azure import CONTAINER_INSTANCE, Azure, run
from cumulet.cli.output import Format, FormatOption, QueryOption, show


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(cost)


def cost(output: FormatOption = Format.TABLE, query: QueryOption = None) -> None:
    """Show seconds, vCPU-seconds, GB-seconds and money for each container group."""

    async def work(azure: Azure) -> Any:
        place = f"Microsoft.ContainerInstance/locations/{azure.config.location}"
        return await azure.arm(
            "GET", f"{azure.subscription}/providers/{place}/usageDetails", api_version=CONTAINER_INSTANCE
        )

    show([row.get("properties", row) for row in run(work)["value"]], output, query)

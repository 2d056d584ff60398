"""A client of container groups in Azure Resource Manager, this project's or Azure's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Required, TypedDict

import aiohttp

from cumulet.common.arm import ArmClient, ArmError
from cumulet.common.ascii import fold
from cumulet.common.entra import ARM_AUDIENCE, AuthenticationError, TokenSource
from cumulet.common.kubernetes.objects import Object
from cumulet.common.tasks import Backoff
from cumulet.node.resource import ContainerGroup, GroupPatch, GroupProperties

log = logging.getLogger(__name__)


API_VERSION = "2023-05-01"
METRICS_VERSION = "2018-01-01"
_POLL = 5.0
_LONGEST_GRACE = 2**31 - 1


class ExecRequest(TypedDict, total=False):
    """The body of exec. `stdin`, `tty` and `protocol` are extensions of this project, as is the body of attach."""

    command: list[str]
    stdin: bool
    tty: bool
    protocol: str


class StreamOffer(TypedDict, total=False):
    """The answer to exec and attach: a WebSocket, and the password that is its first message.

    This project's provider repeats the `protocol` that it speaks; Azure's sends plain bytes.
    """

    webSocketUri: Required[str]
    password: Required[str]
    protocol: str


class ContainerGroups:
    """The container groups of one resource group. All methods raise `ArmError`, `AuthenticationError`, `aiohttp.ClientError`."""

    def __init__(
        self, session: aiohttp.ClientSession, base_url: str, tokens: TokenSource, subscription: str, group: str
    ) -> None:
        self._session = session
        self._base_url = base_url
        self._tokens = tokens
        self._arm = ArmClient(session, base_url, tokens)
        #: Whether the provider is this project's, which answers watches and takes extensions; known after the first list.
        self.has_extensions = False
        #: Whether the provider's disk is nearly full, as far as it says so.
        self.disk_pressure = False
        self._path = f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.ContainerInstance/containerGroups"

    async def put(self, name: str, body: ContainerGroup) -> ContainerGroup:
        """Create a group, or replace the credentials of an existing one; return it."""
        _, _, answer = await self._arm.call("PUT", f"{self._path}/{name}", body, api_version=API_VERSION)
        created: ContainerGroup = answer
        return created

    async def patch(self, name: str, body: GroupPatch) -> None:
        """Replace files of volumes at once, and processes of containers at their next start."""
        await self._arm.call("PATCH", f"{self._path}/{name}", body, api_version=API_VERSION)

    async def delete(self, name: str, grace: int) -> GroupProperties | None:
        """Delete a group, and return its last properties when it is gone, `None` when the provider has none.

        `grace` is in seconds; ARM accepts at most 2**31 - 1.
        """
        query = {"gracePeriodSeconds": str(min(max(grace, 0), _LONGEST_GRACE)), "wait": "true"}
        answer = await self._arm.call("DELETE", f"{self._path}/{name}", api_version=API_VERSION, query=query)
        last: Object | None = await self._arm.finish(answer, api_version=API_VERSION)
        properties: GroupProperties | None = (last or {}).get("properties")
        return properties

    async def post(self, path: str, body: ExecRequest) -> StreamOffer:
        """Call an action of a container, such as `name/containers/web/exec`; return where its WebSocket is."""
        _, _, answer = await self._arm.call("POST", f"{self._path}/{path}", body, api_version=API_VERSION)
        offer: StreamOffer = answer
        return offer

    async def forward(self, name: str, port: int) -> StreamOffer:
        """Ask for a connection to a port on a group's loopback, an extension of this project; return its WebSocket."""
        _, _, answer = await self._arm.call(
            "POST", f"{self._path}/{name}/portForward", {"port": port}, api_version=API_VERSION
        )
        offer: StreamOffer = answer
        return offer

    async def usage(self, name: str) -> dict[str, dict[str, float]]:
        """Return, by container, Azure Monitor's `CpuUsage` in millicores and `MemoryUsage` in bytes."""
        path = f"{self._path}/{name}/providers/Microsoft.Insights/metrics"
        query = {"metricnames": "CpuUsage,MemoryUsage", "aggregation": "average", "interval": "PT1M"}
        query["$filter"] = "containerName eq '*'"
        _, _, answer = await self._arm.call("GET", path, api_version=METRICS_VERSION, query=query)
        usage: dict[str, dict[str, float]] = {}
        for metric in answer["value"]:
            for series in metric.get("timeseries") or ():
                labels = {fold(item["name"]["value"]): item["value"] for item in series.get("metadatavalues") or ()}
                values = [point["average"] for point in series.get("data") or () if "average" in point]
                if values and "containername" in labels:
                    usage.setdefault(labels["containername"], {})[metric["name"]["value"]] = values[-1]
        return usage

    async def stream(self, path: str, query: dict[str, str]) -> AsyncIterator[bytes]:
        """Yield the body of a GET as it arrives."""
        headers = {"Authorization": f"Bearer {await self._tokens.token(ARM_AUDIENCE)}"}
        url = f"{self._base_url}{self._path}/{path}"
        async with self._session.get(url, params={"api-version": API_VERSION, **query}, headers=headers) as response:
            if response.status >= 400:
                error = (await response.json(content_type=None)).get("error") or {}
                raise ArmError(response.status, error.get("code", ""), error.get("message", ""))
            async for chunk in response.content.iter_any():
                yield chunk

    async def changes(self) -> AsyncIterator[list[ContainerGroup]]:
        """Yield all groups with their `instanceView`, again after each change.

        This project's provider answers a watch. Azure's is polled, group by group, because its lists have no views.
        """
        since = "0"
        known: dict[str, ContainerGroup] = {}
        backoff = Backoff(0.1, 10)
        while True:
            try:
                _, _, answer = await self._arm.call(
                    "GET", self._path, api_version=API_VERSION, query={"watch": "true", "since": since}
                )
                groups: list[ContainerGroup] = answer["value"]
                self.has_extensions = "revision" in answer
                self.disk_pressure = bool(answer.get("diskPressure"))
                if self.has_extensions:
                    since = str(answer["revision"])
                    if "removed" in answer:  # otherwise these are all groups
                        for resource_id in answer["removed"]:
                            known.pop(resource_id, None)
                    else:
                        known.clear()
                    known |= {group["id"]: group for group in groups}
                    groups = [*known.values()]
                else:
                    groups = [
                        (await self._arm.call("GET", group["id"], api_version=API_VERSION))[2] for group in groups
                    ]
                yield groups
                backoff.reset()
                if not self.has_extensions:
                    await asyncio.sleep(_POLL)
            except (ArmError, AuthenticationError, aiohttp.ClientError, TimeoutError) as error:
                log.warning("container groups cannot be listed: %s", error)
                since = "0"
                await backoff.wait()

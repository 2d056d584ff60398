"""The metadata service of the room `instances` beside a running `identity`, and groups that call it from addresses of their own."""

from __future__ import annotations

import contextlib
import ssl
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from cumulet.common import tls
from cumulet.instances.groups.identities import Identities
from cumulet.instances.groups.workload_environment import WorkloadEnvironment
from cumulet.instances.metadata.service import MetadataService
from cumulet.instances.metadata.tokens import ManagedTokens
from cumulet.instances.model.envelope import Envelope
from cumulet.instances.model.properties import GroupProperties
from cumulet.instances.store.records import GroupRecord, GroupStatus
from tests.cloud import Answer, Cloud

IDENTITIES = "providers/Microsoft.ManagedIdentity/userAssignedIdentities"


class Caller:
    """A group, with the record that the room keeps of it."""

    def __init__(self, machine: Machine, record: GroupRecord) -> None:
        self._machine = machine
        self.record = record

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """A request from the group's address."""
        return await self._machine.get(path, headers, self.record.status.ip)


class Machine:
    """The service at a port of this machine. A group's address is one of 127.0.0.0/8."""

    def __init__(self, cloud: Cloud, identities: Identities, workload: WorkloadEnvironment) -> None:
        self.cloud = cloud
        self.workload = workload
        self._identities = identities
        self.records: dict[str, GroupRecord] = {}
        self.url = ""
        self.now = 0.0

    async def group(self, address: str, kind: str | None = None, *assigned: str) -> Caller:
        """A new group at an address, with identities."""
        name = f"g{uuid.uuid4().hex[:8]}"
        group = f"{self.cloud.subscription}/resourceGroups/metadata"
        id_ = f"{group}/providers/Microsoft.ContainerInstance/containerGroups/{name}"
        body = None if kind is None else {"type": kind}
        if body is not None and assigned:
            body["userAssignedIdentities"] = {each: {} for each in assigned}  # type: ignore[assignment]
        identity = await self._identities.assign(id_, "eastus", body, None)
        properties = GroupProperties(containers=[])
        record = GroupRecord(
            str(uuid.uuid4()),
            id_.lower(),
            id_,
            "eastus",
            {"tier": "test"},
            properties,
            GroupStatus(ip=address),
            envelope=Envelope(identity=identity),
        )
        self.records[address] = record
        return Caller(self, record)

    async def get(self, path: str, headers: Mapping[str, str] | None, address: str) -> Answer:
        """A request from an address."""
        connector = aiohttp.TCPConnector(local_addr=(address, 0))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(self.url + path, headers=headers) as response,
        ):
            is_json = response.content_type == "application/json"
            return Answer(response.status, response.headers, await (response.json() if is_json else response.text()))


@contextlib.asynccontextmanager
async def running(cloud: Cloud, folder: Path) -> AsyncIterator[Machine]:
    """The service, with the certificate of its room. Its clock for rates stands still."""
    context: ssl.SSLContext = tls.client_context(cloud.config.ca_file, *cloud.config.room_files("instances"))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        identities = Identities(session, cloud.config.url("identity"), cloud.config.tenant_id)
        machine = Machine(cloud, identities, WorkloadEnvironment(folder / "header.key", has_endpoint=True))
        service = MetadataService(
            machine.records.get, ManagedTokens(identities), machine.workload.header, lambda: machine.now
        )
        runner = web.AppRunner(service.application())
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        machine.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield machine
        finally:
            await runner.cleanup()


def make_identity(cloud: Cloud) -> dict[str, Any]:
    """A new user-assigned identity."""
    group = f"{cloud.subscription}/resourceGroups/metadata"
    assert cloud.arm("PUT", group, {"location": "eastus"}).status in (200, 201)
    made: dict[str, Any] = cloud.arm("PUT", f"{group}/{IDENTITIES}/id-{uuid.uuid4()}", {"location": "eastus"}).body
    return made

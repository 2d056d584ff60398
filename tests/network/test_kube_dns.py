"""The Service of the name server, with the rights that the room has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from cumulet.common.kubernetes import Client
from cumulet.common.kubernetes.component import run_informers
from cumulet.common.kubernetes.kubeconfig import load_kubeconfig
from cumulet.common.router import cluster_dns
from cumulet.common.tasks import task_set
from cumulet.network.cluster import Cluster
from cumulet.network.dns.kube_dns import KubeDns
from tests.cloud import Cloud
from tests.controllers.space import Object
from tests.kube.conftest import Server
from tests.network.name_servers import Served, found

_SERVICES = "/api/v1/namespaces/kube-system/services"
_SLICES = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices"
_NAME = "kube-dns.kube-system.svc.cluster.local"


class _Kept:
    """The API server, while the objects are kept."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """The body of the answer to a request."""
        return (await asyncio.to_thread(self._server.call, method, path, body, content_type=_MERGE)).body

    async def wait(self, path: str, expected: Callable[[Object], object]) -> Object:
        """Read an object until it is as expected: whoever keeps it learns of a change by a watch."""
        for _ in range(1000):
            obj: Object = await self.call("GET", path)
            if obj["kind"] != "Status" and expected(obj):
                return obj
        raise AssertionError(f"{path} is still {obj}")


_MERGE = "application/merge-patch+json"


@pytest.fixture
async def kept(control_plane: Cloud) -> AsyncIterator[_Kept]:
    """The objects, kept by the user of the room."""
    config = control_plane.config
    async with (
        Client(load_kubeconfig(config.kubeconfig_file("network")), user_agent="test") as client,
        task_set() as tasks,
    ):
        cluster = Cluster.watched_by(client, config, tasks)
        await run_informers(cluster.informers, tasks, asyncio.Event())
        keeper = KubeDns(client, cluster.services, cluster.slices, cluster_dns(config), "10.241.0.1")
        tasks.start_essential(keeper.run(), "kube-dns")
        yield _Kept(Server(control_plane))


async def test_the_service_of_the_name_server_is_kept(kept: _Kept, control_plane: Cloud, served: Served) -> None:
    path, address = f"{_SERVICES}/kube-dns", str(cluster_dns(control_plane.config))
    assert address.endswith(".10")
    first = await kept.wait(path, lambda service: service["spec"]["clusterIP"] == address)
    ports = [(port["port"], port["protocol"]) for port in first["spec"]["ports"]]
    assert ports == [(53, "UDP"), (53, "TCP")]
    assert "selector" not in first["spec"]
    await asyncio.to_thread(served.wait, found(address), _NAME)
    assert [str(each) for each in served.ask("ns.dns.cluster.local").answer[0]] == [address]

    piece = await kept.wait(f"{_SLICES}/kube-dns", lambda found: found["endpoints"])
    assert piece["endpoints"][0]["addresses"] == ["10.241.0.1"]

    uid = first["metadata"]["uid"]
    await kept.call("DELETE", path)
    again = await kept.wait(path, lambda service: service["metadata"]["uid"] != uid)
    assert again["spec"]["clusterIP"] == address
    await kept.call("DELETE", f"{_SLICES}/kube-dns")
    await kept.wait(f"{_SLICES}/kube-dns", lambda found: found["metadata"]["uid"] != piece["metadata"]["uid"])

    await kept.call("PATCH", path, {"spec": {"ports": [{"name": "dns", "port": 54, "protocol": "UDP"}]}})
    await kept.wait(path, lambda service: [port["port"] for port in service["spec"]["ports"]] == [53, 53])


async def test_a_service_of_that_name_with_another_address_is_made_anew(kept: _Kept, control_plane: Cloud) -> None:
    path, address = f"{_SERVICES}/kube-dns", str(cluster_dns(control_plane.config))
    await kept.wait(path, lambda service: service["spec"]["clusterIP"] == address)
    own = {"metadata": {"name": "kube-dns"}, "spec": {"ports": [{"port": 53}], "clusterIP": "None"}}
    await kept.call("DELETE", path)
    await asyncio.to_thread(Server(control_plane).call, "POST", _SERVICES, own)
    await kept.wait(path, lambda service: service["spec"]["clusterIP"] == address)

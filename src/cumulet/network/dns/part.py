"""The part of the room: the name server at the gateway, and the Service that leads pods to it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator

from cumulet.common import doors, router
from cumulet.common.config import Config
from cumulet.network.cluster import Cluster
from cumulet.network.dns.kube_dns import KubeDns
from cumulet.network.dns.machine import HostsFile, Upstream, Upstreams
from cumulet.network.dns.nameserver import Addresses, Elsewhere, Sockets, name_server


@contextlib.asynccontextmanager
async def running(cluster: Cluster) -> AsyncIterator[None]:
    """Serve names to the pods of this machine, and keep the Service where the cluster is this installation's."""
    config = cluster.config
    gateway, address = str(router.gateway(config)), router.cluster_dns(config)
    addresses = Addresses(
        gateway,
        ipaddress.IPv4Network(config.pod_cidr),
        (str(router.machine_address(config)),),
        ipaddress.IPv4Network(config.service_cidr),
    )
    instances = config.addresses["instances"]
    # The room `instances` answers for its groups' names on the UDP port of the same number.
    groups = [Upstream(instances.host, instances.port)]
    elsewhere = Elsewhere(HostsFile(), lambda: groups, Upstreams({gateway, str(address)}).get)
    opened = cluster.doors or await asyncio.to_thread(_open, config)
    sockets = Sockets(opened[:1], opened[1:])
    async with name_server(cluster, addresses, elsewhere, sockets):
        if config.kubeconfig is None:
            keeper = KubeDns(cluster.client, cluster.services, cluster.slices, address, gateway)
            cluster.tasks.start_essential(keeper.run(), "kube-dns")
        yield


def _open(config: Config) -> list[socket.socket]:
    """Open the sockets in the router's namespace, which is there afterwards. Raises `OSError`, `RouterError`."""
    router.ensure(config)
    return doors.name_server(config)

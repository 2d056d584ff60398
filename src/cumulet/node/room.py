"""Starts the room: registers the node, watches pods and groups, serves the kubelet's API."""

from __future__ import annotations

import logging
from typing import Any

import aiohttp
import msgspec

from cumulet.common.config import KUBELET_CLIENT, ConfigError
from cumulet.common.entra import TokenSource, read_credential
from cumulet.common.kubernetes import Informer, Kubeconfig, KubernetesError
from cumulet.common.kubernetes.component import client_of, run_informers
from cumulet.common.room import Room
from cumulet.common.tasks import Backoff, task_set
from cumulet.node.access import Access
from cumulet.node.aci import ContainerGroups
from cumulet.node.kubelet import ACCESS, Kubelet
from cumulet.node.pods import Pods
from cumulet.node.registration import Registration
from cumulet.node.stats import Stats
from cumulet.node.streams import Streams

log = logging.getLogger(__name__)

_WORKERS = 16


async def serve(room: Room) -> None:
    """Run the node until the room is stopped."""
    config = room.config
    context = room.client_tls()
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        client_of(room) as client,
        task_set() as tasks,
    ):
        credential = read_credential(config.credential_file("virtual-node"))
        tokens = TokenSource(session, config.url("identity"), credential)
        groups = ContainerGroups(
            session, config.url("arm"), tokens, config.subscription_id, config.node_resource_group
        )
        if config.kubeconfig is not None:
            # The virtual node of another cluster can have the same name in the same resource group.
            cluster = f"{config.cluster} {client.kubeconfig.server}"
            subnet = config.node_subnet or config.subnet_of(cluster)
            config = msgspec.structs.replace(config, cluster=cluster, node_subnet=subnet)
        pods = Pods(client, groups, config, tasks)
        informers: list[Informer[Any]] = [pods.pods, pods.secrets, pods.config_maps, pods.services, pods.accounts]
        registration = Registration(client, config, pods.events.recorder, lambda: groups.disk_pressure)
        registered = False

        def unready() -> str | None:
            waiting = [informer.resource.plural for informer in informers if not informer.synced.is_set()]
            if waiting:
                return f"waiting for {', '.join(waiting)}"
            return None if registered else "not registered yet"

        app = Kubelet(pods, groups, Stats(pods, groups, config.node_name), Streams(pods, groups, session)).app(
            unready
        )
        own = config.kubeconfig is None
        app[ACCESS] = Access(client, config.node_name, KUBELET_CLIENT if own else None)
        async with room.serving(app, clients="kubelet-client" if own else _client_ca(room, client.kubeconfig)):
            room.ready()
            backoff = Backoff(0.05, 5)
            while not registered and not room.stopping.is_set():
                try:
                    await registration.register()
                    registered = True
                except (KubernetesError, aiohttp.ClientError, TimeoutError) as error:
                    log.warning("registering the node: %s", error)
                    await backoff.wait()
            tasks.start_essential(registration.run(), "heartbeat")
            tasks.start_essential(pods.events.recorder.run(), "events")
            await run_informers(informers, tasks, room.stopping)
            tasks.start_essential(pods.watch(), "groups")
            for _ in range(_WORKERS):
                tasks.start_essential(pods.queue.work(pods.reconcile), "pod")
            await room.stopping.wait()


def _client_ca(room: Room, kubeconfig: Kubeconfig) -> bytes:
    """Return the authority, in PEM, of the certificate that another cluster's API server presents to nodes.

    Raises `ConfigError`.
    """
    if room.config.client_ca is not None:
        return room.config.client_ca.read_bytes()
    if kubeconfig.authority is None:
        raise ConfigError(f"{room.config.kubeconfig} has no certificate-authority: specify one with --client-ca")
    return kubeconfig.authority

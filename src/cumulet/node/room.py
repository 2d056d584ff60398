"""Starts the room: the virtual node, and the nodes of the pool. Each registers, watches pods and groups, and serves a kubelet."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp
import msgspec

from cumulet.common.arm import ArmClient
from cumulet.common.config import DISKS, Config, ConfigError
from cumulet.common.entra import TokenSource, read_credential
from cumulet.common.kubernetes import Client, Kubeconfig
from cumulet.common.kubernetes.component import client_of, run_informers
from cumulet.common.room import Room
from cumulet.common.tasks import task_set
from cumulet.node.aci import ContainerGroups
from cumulet.node.agent import Agent, settings_of
from cumulet.node.profile import Profile, pool_node, virtual_node
from cumulet.node.provisioner import Provisioner
from cumulet.node.watched import Watched


async def serve(room: Room) -> None:
    """Run the nodes until the room is stopped."""
    config = room.config
    connector = aiohttp.TCPConnector(ssl=room.client_tls(), limit=0)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        client_of(room) as client,
        contextlib.AsyncExitStack() as open_,
        task_set() as tasks,
    ):
        credential = read_credential(config.credential_file("virtual-node"))
        tokens = TokenSource(session, config.url("identity"), credential)
        disks = await open_.enter_async_context(client_of(room, DISKS)) if config.kubeconfig is None else None
        watched = Watched(client, disks)

        def agent(profile: Profile, client: Client) -> Agent:
            groups = ContainerGroups(
                session, config.url("arm"), tokens, config.subscription_id, config.node_resource_group
            )
            return Agent(client, groups, settings_of(settings, profile), profile, watched, tasks)

        settings, clients = config, b""
        if config.kubeconfig is not None:
            settings, clients = _elsewhere(config, client.kubeconfig), _client_ca(config, client.kubeconfig)
        agents = [agent(virtual_node(settings), client)]
        listeners = [*room.listeners]
        pool = [pool_node(config, node) for node in config.pool]
        own = listeners[: len(listeners) - len(pool)]
        await open_.enter_async_context(
            agents[0].serving(room, session, own, config.certificate_files("node"), clients)
        )
        for profile, listener in zip(pool, listeners[len(own) :], strict=True):
            agents.append(agent(profile, await open_.enter_async_context(client_of(room, profile.name))))
            files = config.node_certificate_files(profile.name)
            await open_.enter_async_context(agents[-1].serving(room, session, [listener], files))
        provisioner = None
        if disks is not None:
            arm = ArmClient(session, config.url("arm"), tokens)
            names = frozenset(profile.name for profile in pool)
            provisioner = Provisioner(disks, arm, config, names, watched.claims, watched.volumes, watched.classes)
        room.ready()
        await asyncio.gather(*(agent.register(room.stopping.is_set) for agent in agents))
        for each in agents:
            each.heartbeat()
        informers = [informer for each in agents for informer in each.informers]
        await run_informers([*informers, *watched.informers], tasks, room.stopping)
        for each in agents:
            each.work()
        if provisioner is not None:
            provisioner.work(tasks)
        await room.stopping.wait()


def _elsewhere(config: Config, kubeconfig: Kubeconfig) -> Config:
    """Return the settings of a node of another cluster, which can have a node of the same name in the same resource group."""
    cluster = f"{config.cluster} {kubeconfig.server}"
    subnet = config.node_subnet or config.subnet_of(cluster)
    return msgspec.structs.replace(config, cluster=cluster, node_subnet=subnet)


def _client_ca(config: Config, kubeconfig: Kubeconfig) -> bytes:
    """Return the authority, in PEM, of the certificate that another cluster's API server presents to nodes.

    Raises `ConfigError`.
    """
    if config.client_ca is not None:
        return config.client_ca.read_bytes()
    if kubeconfig.authority is None:
        raise ConfigError(f"{config.kubeconfig} has no certificate-authority: specify one with --client-ca")
    return kubeconfig.authority

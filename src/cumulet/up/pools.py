"""The node pool: its nodes in the settings, and the way of a node out of it.

`cumulet up --node-pool N` adds nodes, or lets the last ones leave. A node that leaves is cordoned, drained and deleted
once the rooms run, as when AKS scales a pool down ("Scale the node count in an AKS cluster").
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from cumulet.common import config as settings
from cumulet.common.config import POOL_LIMIT, Address, Config, ConfigError, PoolNode
from cumulet.common.kubernetes import Client, KubernetesError, suppress_stale
from cumulet.common.kubernetes.client import NODES, PODS
from cumulet.common.kubernetes.kubeconfig import load_kubeconfig
from cumulet.common.kubernetes.objects import Pod
from cumulet.common.node_names import pool_node_name
from cumulet.node.profile import MACHINE_SIZES

#: Seconds in which a node has to be empty: AKS's default time-out of a drain.
_DRAIN_LIMIT = 30 * 60.0
#: Seconds between two attempts of an eviction that a disruption budget refuses, and between two looks (kubectl drain).
_RETRY, _LOOK = 5.0, 0.25


class Wanted(NamedTuple):
    """The number of nodes and the size of their machines that the user asks for, `None` to keep them."""

    nodes: int | None = None
    size: str | None = None


UNCHANGED = Wanted()


def with_pool(config: Config, wanted: Wanted) -> Config:
    """Return the settings with a pool of the wanted size; nodes beyond it leave. Raises `ConfigError`."""
    if wanted.size is not None:
        if wanted.size not in MACHINE_SIZES:
            raise ConfigError(f"--node-vm-size: {wanted.size} is not one of {', '.join(MACHINE_SIZES)}")
        config = msgspec.structs.replace(config, node_size=wanted.size)
    if wanted.nodes is None:
        return config
    if config.kubeconfig is not None:
        raise ConfigError("--node-pool: another cluster has nodes of its own. Omit --node-pool or --kubeconfig")
    if not 0 <= wanted.nodes <= POOL_LIMIT:
        raise ConfigError(f"--node-pool: {wanted.nodes} is not a number from 0 to {POOL_LIMIT}")
    known = {node.number: node for node in config.node_pool}
    taken = {address.port for room in config.addresses for address in config.listening(room)}
    for number in range(wanted.nodes):
        if number not in known:
            address = Address(config.addresses["node"].host, 0).free(taken)
            taken.add(address.port)
            known[number] = PoolNode(number=number, address=address)
    nodes = [msgspec.structs.replace(node, leaves=number >= wanted.nodes) for number, node in sorted(known.items())]
    return msgspec.structs.replace(config, node_pool=nodes)


async def scale_down(config: Config, report: Callable[[str], None]) -> Config:
    """Drain and delete the nodes that leave, and save the settings without them. The rooms must be ready.

    `report` gets a line for each node. Returns the new settings. Raises `ConfigError` if a node is not empty in time,
    `KubernetesError`, `aiohttp.ClientError`.
    """
    leaving = [node for node in config.pool if node.leaves]
    if not leaving:
        return config
    async with Client(load_kubeconfig(config.kubeconfig_file()), user_agent="cumulet-up") as client:
        names = [pool_node_name(config, node) for node in leaving]
        for name in names:
            report(f"node/{name} leaves the pool: its pods are evicted")
        await asyncio.gather(*(_remove(client, name) for name in names))
    for name in names:
        report(f"node/{name} deleted")
    config = msgspec.structs.replace(config, node_pool=[node for node in config.node_pool if not node.leaves])
    settings.save(config)
    return config


async def _remove(client: Client, name: str) -> None:
    """Cordon, drain and delete a node, and the pods of daemon sets, which end with it."""
    until = time.monotonic() + _DRAIN_LIMIT
    with suppress_stale():
        await client.patch(NODES, name, {"spec": {"unschedulable": True}})
    tried: dict[str, float] = {}
    while pods := [pod for pod in await _pods(client, name, until) if not _stays(pod)]:
        for pod in pods:
            if not pod["metadata"].get("deletionTimestamp") and _is_due(tried, pod["metadata"]["uid"]):
                await _evict(client, pod)
        await asyncio.sleep(_LOOK)
    with suppress_stale():
        await client.delete(NODES, name)
    # The kubelet still runs, and ends them. A daemon set makes none anew, as there is no such node.
    while pods := await _pods(client, name, until):
        for pod in pods:
            metadata = pod["metadata"]
            if not metadata.get("deletionTimestamp"):
                with suppress_stale():
                    await client.delete(PODS, metadata["name"], metadata["namespace"], uid=metadata["uid"])
        await asyncio.sleep(_LOOK)


async def _pods(client: Client, node: str, until: float) -> list[Pod]:
    """Return the pods of a node. Raises `ConfigError` if there are any after the monotonic time `until`."""
    found = await client.list(PODS, None, {"fieldSelector": f"spec.nodeName={node}"})
    if found["items"] and time.monotonic() > until:
        raise ConfigError(f"node/{node} still has {len(found['items'])} pods after {_DRAIN_LIMIT / 60:g} minutes")
    return found["items"]


def _stays(pod: Pod) -> bool:
    """Whether a pod goes with its node: one of a daemon set, which would only be made anew."""
    owners = pod["metadata"].get("ownerReferences") or ()
    return any(owner.get("controller") and owner["kind"] == "DaemonSet" for owner in owners)


def _is_due(tried: dict[str, float], uid: str) -> bool:
    now = time.monotonic()
    if now - tried.get(uid, -_RETRY) < _RETRY:
        return False
    tried[uid] = now
    return True


async def _evict(client: Client, pod: Pod) -> None:
    metadata = pod["metadata"]
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
    }
    path = PODS.path(metadata["namespace"], metadata["name"], "eviction")
    try:
        await client.request("POST", path, body=body)
    except KubernetesError as error:
        if error.code not in (404, 409, 429):  # gone, or a disruption budget keeps it for now
            raise


def forget(config: Config) -> None:
    """Delete the certificates and the kubeconfigs of nodes that are not in the pool any more."""
    present = {node.number for node in config.node_pool}
    for number in range(POOL_LIMIT):
        if number not in present:
            name = pool_node_name(config, PoolNode(number=number, address=config.addresses["node"]))
            files = (*config.node_certificate_files(name), *config.user_files(name), config.kubeconfig_file(name))
            for file in files:
                file.unlink(missing_ok=True)

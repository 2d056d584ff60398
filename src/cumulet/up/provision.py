"""What AKS gives a cluster beyond Kubernetes: the resource group of its container groups, and classes of storage."""

from __future__ import annotations

import asyncio

import aiohttp

from cumulet.common import tls
from cumulet.common.arm import ArmClient, ArmError
from cumulet.common.config import Config
from cumulet.common.entra import AuthenticationError, TokenSource, read_credential
from cumulet.common.kubernetes import Client, KubernetesError
from cumulet.common.kubernetes.client import STORAGECLASSES
from cumulet.common.kubernetes.kubeconfig import load_kubeconfig
from cumulet.common.kubernetes.objects import StorageClass

#: Managed disks. A virtual node has none, so its pods' claims are never bound.
_DISKS: dict[str, dict[str, str]] = {
    "default": {"storageclass.kubernetes.io/is-default-class": "true"},
    "managed-csi": {},
}


class ProvisionError(Exception):
    """Something could not be made; the message says what and why."""


async def provision(config: Config) -> None:
    """Make what is missing of it; the rooms must be up. Raises `ProvisionError`."""
    await _resource_group(config)
    if config.kubeconfig is None:  # another cluster has classes of its own
        await _storage_classes(config)


async def _resource_group(config: Config) -> None:
    context = tls.client_context(config.ca_file)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        tokens = TokenSource(session, config.url("identity"), read_credential(config.credential_file("owner")))
        arm = ArmClient(session, config.url("arm"), tokens)
        path = f"/subscriptions/{config.subscription_id}/resourceGroups/{config.node_resource_group}"
        try:
            await arm.call("PUT", path, {"location": config.location}, api_version="2024-03-01")
        except (ArmError, AuthenticationError, aiohttp.ClientError) as error:
            raise ProvisionError(
                f"the resource group {config.node_resource_group} could not be made: {error}"
            ) from error


async def _storage_classes(config: Config) -> None:
    async with Client(load_kubeconfig(config.kubeconfig_file()), user_agent="cumulet-up") as client:
        await asyncio.gather(*(_ensure(client, _disk_class(name, notes)) for name, notes in _DISKS.items()))


async def _ensure(client: Client, storage_class: StorageClass) -> None:
    try:
        await client.create(STORAGECLASSES, storage_class)
    except (KubernetesError, aiohttp.ClientError) as error:
        if not isinstance(error, KubernetesError) or error.code != 409:  # it is there from an earlier start
            name = storage_class["metadata"]["name"]
            raise ProvisionError(f"the storage class {name} could not be made: {error}") from error


def _disk_class(name: str, annotations: dict[str, str]) -> StorageClass:
    return {
        "metadata": {"name": name, "annotations": annotations},
        "provisioner": "disk.csi.azure.com",
        "parameters": {"skuname": "StandardSSD_LRS"},
        "reclaimPolicy": "Delete",
        "allowVolumeExpansion": True,
        "volumeBindingMode": "WaitForFirstConsumer",
    }

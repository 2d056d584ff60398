"""Creates the objects that AKS adds to a cluster: the resource group of container groups, and storage classes."""

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
    """An object could not be created. The message names it and the reason."""


async def provision(config: Config) -> None:
    """Create missing objects. The rooms must be ready. Raises `ProvisionError`."""
    await _resource_group(config)
    if config.kubeconfig is None:  # another cluster has its own classes
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
                f"the resource group {config.node_resource_group} could not be created: {error}"
            ) from error


async def _storage_classes(config: Config) -> None:
    async with Client(load_kubeconfig(config.kubeconfig_file()), user_agent="cumulet-up") as client:
        await asyncio.gather(*(_ensure(client, name, annotations) for name, annotations in _DISKS.items()))


async def _ensure(client: Client, name: str, annotations: dict[str, str]) -> None:
    try:
        await client.create(STORAGECLASSES, _disk_class(name, annotations))
    except (KubernetesError, aiohttp.ClientError) as error:
        if not isinstance(error, KubernetesError) or error.code != 409:  # it exists since an earlier start
            raise ProvisionError(f"the storage class {name} could not be created: {error}") from error


def _disk_class(name: str, annotations: dict[str, str]) -> StorageClass:
    return {
        "metadata": {"name": name, "annotations": annotations},
        "provisioner": "disk.csi.azure.com",
        "parameters": {"skuname": "StandardSSD_LRS"},
        "reclaimPolicy": "Delete",
        "allowVolumeExpansion": True,
        "volumeBindingMode": "WaitForFirstConsumer",
    }

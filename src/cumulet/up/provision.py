"""Creates what AKS adds to a cluster: a resource group, the identity of its kubelets, and storage classes."""

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
from cumulet.common.node_names import kubelet_identity

#: Managed disks, which the nodes of the pool attach. A virtual node has none.
_DISKS: dict[str, dict[str, str]] = {
    "default": {"storageclass.kubernetes.io/is-default-class": "true"},
    "managed-csi": {},
}


class ProvisionError(Exception):
    """An object could not be created. The message names it and the reason."""


async def provision(config: Config) -> None:
    """Create missing objects. The rooms must be ready. Raises `ProvisionError`."""
    await _resources(config)
    if config.kubeconfig is None:  # another cluster has its own classes
        await _storage_classes(config)


async def _resources(config: Config) -> None:
    context = tls.client_context(config.ca_file)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        tokens = TokenSource(session, config.url("identity"), read_credential(config.credential_file("owner")))
        arm = ArmClient(session, config.url("arm"), tokens)
        what = f"resource group {config.node_resource_group}"
        body = {"location": config.location}
        try:
            await arm.call("PUT", config.node_resource_group_id, body, api_version="2024-03-01")
            what = f"identity {kubelet_identity(config)}"
            await _identity(arm, kubelet_identity(config), body)
        except (ArmError, AuthenticationError, aiohttp.ClientError) as error:
            raise ProvisionError(f"the {what} could not be created: {error}") from error


async def _identity(arm: ArmClient, resource_id: str, body: dict[str, str]) -> None:
    """Create an identity, unless it exists with the tags of its user."""
    try:
        await arm.call("GET", resource_id, api_version="2023-01-31")
    except ArmError as error:
        if error.status != 404:
            raise
        await arm.call("PUT", resource_id, body, api_version="2023-01-31")


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

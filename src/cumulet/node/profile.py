"""What tells the nodes of the room apart: their labels, their amounts, and what each says about its machine."""

from __future__ import annotations

import os
import platform
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cumulet.common.config import Address, Config, PoolNode
from cumulet.common.kubernetes.objects import NodeSystemInfo, Taint
from cumulet.common.node_names import pool_node_name, scale_set

#: The version of Azure's connector.
_CONNECTOR = "v1.25.0-vk-azure-aci-1.6.4"
#: The version of Kubernetes that the kubelet of an ordinary node follows.
_KUBELET = "v1.36.0"
_GIB = 1024**3
_MIB = 1024**2
#: The pods of a node and the size of its disk: AKS's defaults.
_PODS, _DISK = 110, 128 * _GIB


class MachineSize(NamedTuple):
    """The processors and the bytes of memory of a size of virtual machines."""

    processors: int
    memory: int


#: Sizes by Azure's names ("Sizes for virtual machines in Azure").
MACHINE_SIZES: dict[str, MachineSize] = {
    "Standard_B2s": MachineSize(2, 4 * _GIB),
    "Standard_B2ms": MachineSize(2, 8 * _GIB),
    "Standard_DS2_v2": MachineSize(2, 7 * _GIB),
    "Standard_D2s_v3": MachineSize(2, 8 * _GIB),
    "Standard_DS3_v2": MachineSize(4, 14 * _GIB),
    "Standard_D4s_v3": MachineSize(4, 16 * _GIB),
    "Standard_D8s_v3": MachineSize(8, 32 * _GIB),
}


class Profile(NamedTuple):
    """A node. `machine` is its virtual machine's name, `None` for the virtual node; amounts are quantities."""

    name: str
    address: Address
    labels: Mapping[str, str]
    taints: list[Taint]
    capacity: Mapping[str, str]
    allocatable: Mapping[str, str]
    info: NodeSystemInfo
    provider_id: str | None = None
    machine: str | None = None
    leaves: bool = False

    @property
    def is_virtual(self) -> bool:
        """Whether the node has no machine: its pods are Azure Container Instances, with what those have and no more."""
        return self.machine is None


def virtual_node(config: Config) -> Profile:
    """Return the virtual node, with the labels, the taint and the capacity of AKS's."""
    labels = {
        "alpha.service-controller.kubernetes.io/exclude-balancer": "true",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.azure.com/managed": "false",
        "kubernetes.io/hostname": config.node_name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/role": "agent",
        "node.kubernetes.io/exclude-from-external-load-balancers": "true",
        "type": "virtual-kubelet",
    }
    taint: Taint = {"key": "virtual-kubelet.io/provider", "value": "azure", "effect": "NoSchedule"}
    capacity = {"cpu": "10000", "memory": "4Ti", "pods": "5000", "ephemeral-storage": "100Ti"}
    info: NodeSystemInfo = {
        "machineID": "",
        "systemUUID": "",
        "bootID": "",
        "kernelVersion": "",
        "osImage": "",
        "containerRuntimeVersion": "",
        "kubeletVersion": _CONNECTOR,
        "kubeProxyVersion": "",
        "operatingSystem": "Linux",
        "architecture": "amd64",
    }
    return Profile(config.node_name, config.addresses["node"], labels, [taint], capacity, capacity, info)


def pool_node(config: Config, node: PoolNode) -> Profile:
    """Return a node of the pool, with the labels of AKS's; its amounts are those of its size, as far as the machine has them."""
    name, size = pool_node_name(config, node), MACHINE_SIZES[config.node_size]
    processors = min(size.processors, os.cpu_count() or 1)
    memory = min(size.memory, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    disk = min(_DISK, shutil.disk_usage(config.data_dir).total)
    others = {
        "ephemeral-storage": f"{disk // 1024}Ki",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "pods": str(_PODS),
    }
    capacity = {"cpu": str(processors), "memory": f"{memory // 1024}Ki", **others}
    # The kubelet's own share of the disk is a tenth, its default threshold of eviction.
    others["ephemeral-storage"] = str(disk * 9 // 10)
    allocatable = {
        "cpu": f"{processors * 1000 - _reserved_processors(processors)}m",
        "memory": f"{(memory - _reserved_memory(memory)) // 1024}Ki",
        **others,
    }
    own = uuid.uuid5(uuid.UUID(config.subscription_id), name)
    info: NodeSystemInfo = {
        "machineID": own.hex,
        "systemUUID": str(own),
        "bootID": _line("/proc/sys/kernel/random/boot_id"),
        "kernelVersion": platform.release(),
        "osImage": _system(),
        "containerRuntimeVersion": f"cumulet://{_KUBELET.removeprefix('v')}",
        "kubeletVersion": _KUBELET,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": _architecture(),
    }
    machines = f"{config.node_resource_group_id}/providers/Microsoft.Compute/virtualMachineScaleSets"
    provider_id = f"azure://{machines}/{scale_set(config)}/virtualMachines/{node.number}"
    labels = _labels(config, name)
    return Profile(name, node.address, labels, [], capacity, allocatable, info, provider_id, name, node.leaves)


def _labels(config: Config, name: str) -> dict[str, str]:
    """Return AKS's labels ("Reserved system labels")."""
    pool, architecture = "nodepool1", _architecture()
    return {
        "agentpool": pool,
        "beta.kubernetes.io/arch": architecture,
        "beta.kubernetes.io/instance-type": config.node_size,
        "beta.kubernetes.io/os": "linux",
        "failure-domain.beta.kubernetes.io/region": config.location,
        "failure-domain.beta.kubernetes.io/zone": "0",
        "kubernetes.azure.com/agentpool": pool,
        "kubernetes.azure.com/cluster": config.node_resource_group,
        "kubernetes.azure.com/mode": "system",
        "kubernetes.azure.com/nodepool-type": "VirtualMachineScaleSets",
        "kubernetes.azure.com/os-sku": "Ubuntu",
        "kubernetes.azure.com/role": "agent",
        "kubernetes.azure.com/storageprofile": "managed",
        "kubernetes.azure.com/storagetier": "Premium_LRS",
        "kubernetes.io/arch": architecture,
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/role": "agent",
        "node.kubernetes.io/instance-type": config.node_size,
        "storageprofile": "managed",
        "storagetier": "Premium_LRS",
        # Volumes of a disk are bound to nodes with this label: the virtual node lacks it.
        "topology.disk.csi.azure.com/zone": "",
        "topology.kubernetes.io/region": config.location,
        "topology.kubernetes.io/zone": "0",
    }


def _reserved_processors(processors: int) -> int:
    """Return the thousandths of a processor that AKS reserves ("Node resource reservations")."""
    table = {1: 60, 2: 100, 4: 140, 8: 180, 16: 260, 32: 420, 64: 740}
    return next((reserved for number, reserved in table.items() if processors <= number), 740)


def _reserved_memory(memory: int) -> int:
    """Return the bytes that AKS reserves: 20 MB a pod and 50 MB, at most a quarter, and the threshold of eviction."""
    return min((20 * _PODS + 50) * _MIB, memory // 4) + 100 * _MIB


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _system() -> str:
    """Return the name of the machine's system (os-release(5))."""
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def _line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""

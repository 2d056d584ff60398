"""The names that AKS gives to what belongs to a node pool: its scale set, its nodes, and the identity of their kubelets."""

from __future__ import annotations

from cumulet.common.config import Config, PoolNode, cluster_number


def scale_set(config: Config) -> str:
    """Return the name of the scale set of the node pool."""
    return f"aks-nodepool1-{cluster_number(config.cluster)}-vmss"


def pool_node_name(config: Config, node: PoolNode) -> str:
    """Return the name of a node: the scale set's, and the node's number with six digits."""
    return f"{scale_set(config)}{node.number:06}"


def kubelet_identity(config: Config) -> str:
    """Return the resource id of the user-assigned identity with which the nodes of the pool pull images."""
    name = f"{config.cluster}-agentpool"
    return f"{config.node_resource_group_id}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"

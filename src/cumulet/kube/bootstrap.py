"""What a new cluster has from the start, and what is made good at each start where it is missing."""

from __future__ import annotations

import asyncio
from typing import Any

from cumulet.common.config import Config
from cumulet.kube.admission import SYSTEM_NAMESPACES
from cumulet.kube.authorize import DEFAULT_BINDINGS, DEFAULT_ROLES, VIRTUAL_NODE
from cumulet.kube.flow import GROUP, LEVELS, SCHEMAS
from cumulet.kube.objects import Change, Objects
from cumulet.kube.resources import BY_KEY

_PRIORITIES = (
    ("system-cluster-critical", 2_000_000_000, "run in the cluster, but can be moved to another node if necessary"),
    ("system-node-critical", 2_000_001_000, "not be moved from their current node"),
)
_RBAC = "rbac.authorization.k8s.io"


async def bootstrap(objects: Objects, config: Config, service_address: str) -> None:
    """Make namespaces, default accounts, roles and the `kubernetes` service."""
    await asyncio.gather(
        *(_ensure(objects, "namespaces", "", {"metadata": {"name": name}}) for name in SYSTEM_NAMESPACES)
    )
    # What follows is written at once, with few commits.
    async with asyncio.TaskGroup() as tasks:
        _begin(tasks, objects, config, service_address)


def _begin(tasks: asyncio.TaskGroup, objects: Objects, config: Config, service_address: str) -> None:
    def ensure(key: str, namespace: str, obj: dict[str, Any], change: Change | None = None) -> None:
        tasks.create_task(_ensure(objects, key, namespace, obj, change))

    authority = config.ca_file.read_text()
    for namespace in SYSTEM_NAMESPACES:
        # So that the first pod need not wait for the controllers.
        ensure("serviceaccounts", namespace, {"metadata": {"name": "default"}})
        root = {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": authority}}
        ensure("configmaps", namespace, root)
    for name, rules in DEFAULT_ROLES.items():
        role = {"metadata": _labelled(name), "rules": rules}
        # A role may have other rules in this version than in the one that made it.
        ensure(f"clusterroles.{_RBAC}", "", role, _with_rules(rules))
    bindings = {**DEFAULT_BINDINGS, VIRTUAL_NODE: [("User", f"system:node:{config.node_name}")]}
    for name, subjects in bindings.items():
        binding = {
            "metadata": _labelled(name),
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": _RBAC, "kind": kind, "name": who} for kind, who in subjects],
        }
        # Nodes had their role by their group once; now they are authorised one by one.
        ensure(f"clusterrolebindings.{_RBAC}", "", binding, _without_nodes if name == "system:node" else None)
    for name, value, what in _PRIORITIES:
        description = f"Used for system critical pods that must {what}."
        priority = {"metadata": {"name": name}, "value": value, "description": description}
        ensure("priorityclasses.scheduling.k8s.io", "", priority)
    for name, spec in LEVELS.items():
        ensure(f"prioritylevelconfigurations.{GROUP}", "", {"metadata": {"name": name}, "spec": spec})
    for name, spec in SCHEMAS.items():
        ensure(f"flowschemas.{GROUP}", "", {"metadata": {"name": name}, "spec": spec})
    address = config.addresses["kube"]
    labels = {"component": "apiserver", "provider": "kubernetes"}
    service = {
        "metadata": {"name": "kubernetes", "labels": labels},
        "spec": {"clusterIP": service_address, "ports": [{"name": "https", "port": 443, "targetPort": address.port}]},
    }
    ensure("services", "default", service)
    endpoints = {
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address.host], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": address.port}],
    }
    ensure("endpointslices.discovery.k8s.io", "default", endpoints)


def _with_rules(rules: list[dict[str, Any]]) -> Change:
    return lambda old: {**old, "rules": rules}


def _without_nodes(binding: dict[str, Any]) -> dict[str, Any]:
    binding["subjects"] = [item for item in binding.get("subjects") or () if item.get("name") != "system:nodes"]
    return binding


def _labelled(name: str) -> dict[str, Any]:
    return {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}


async def _ensure(
    objects: Objects, key: str, namespace: str, obj: dict[str, Any], change: Change | None = None
) -> None:
    """Make an object where it is missing; `change` is made to it in any case."""
    row, name = BY_KEY[key], obj["metadata"]["name"]
    if not objects.exists(row, namespace, name):
        await objects.create(row, namespace, obj)
    if change is not None:
        await objects.change(row, namespace, name, change)

"""The objects of a new cluster, which each start creates where they are missing."""

from __future__ import annotations

import asyncio
import functools
import json

from cumulet.common import clock, doors, router
from cumulet.common.config import FRONT_PROXY_CLIENT, Config
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.access.default_roles import GROUP as RBAC
from cumulet.kube.access.default_roles import default_roles, with_current_rules
from cumulet.kube.admission import SYSTEM_NAMESPACES
from cumulet.kube.catalog.resources import BY_KEY, RESOURCES
from cumulet.kube.flow import GROUP, LEVELS, SCHEMAS
from cumulet.kube.objects.write import Change, Objects

_PRIORITIES = (
    ("system-cluster-critical", 2_000_000_000, "run in the cluster, but can be moved to another node if necessary"),
    ("system-node-critical", 2_000_001_000, "not be moved from their current node"),
)
#: How aggregated API servers learn the user of a forwarded request.
_PASSED_ON = {
    "requestheader-allowed-names": json.dumps([FRONT_PROXY_CLIENT]),
    "requestheader-username-headers": '["X-Remote-User"]',
    "requestheader-group-headers": '["X-Remote-Group"]',
    "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
}
_KEYS = {row.kind: row.key for row in RESOURCES if row.group == RBAC}


async def bootstrap(objects: Objects, config: Config, service_address: str) -> None:
    """Create namespaces, default accounts, roles and the `kubernetes` service."""
    await asyncio.gather(
        *(_ensure(objects, "namespaces", "", {"metadata": {"name": name}}) for name in SYSTEM_NAMESPACES)
    )
    # The rest is written at once, with few commits.
    async with asyncio.TaskGroup() as tasks:
        _begin(tasks, objects, config, service_address)


def _begin(tasks: asyncio.TaskGroup, objects: Objects, config: Config, service_address: str) -> None:
    def ensure(key: str, namespace: str, obj: Object, change: Change | None = None) -> None:
        tasks.create_task(_ensure(objects, key, namespace, obj, change))

    # The authority of this server's certificate. It is updated, as a migration replaces it.
    authority = {"ca.crt": config.authority_file("serving").read_text()}
    for namespace in SYSTEM_NAMESPACES:
        # The first pod need not wait for the controllers.
        ensure("serviceaccounts", namespace, {"metadata": {"name": "default"}})
        root = {"metadata": {"name": "kube-root-ca.crt"}, "data": authority}
        ensure("configmaps", namespace, root, lambda old: {**old, "data": authority})
    # Aggregated API servers read here which authorities sign client certificates of users and of the front proxy.
    trusted = {
        "client-ca-file": config.authority_file("cluster").read_text(),
        "requestheader-client-ca-file": config.authority_file("front-proxy").read_text(),
        **_PASSED_ON,
    }
    trust = {"metadata": {"name": "extension-apiserver-authentication"}, "data": trusted}
    ensure("configmaps", "kube-system", trust, lambda old: {**old, "data": {**(old.get("data") or {}), **trusted}})
    # The cleaner of old tokens reads here since when their use is recorded. No token is older than this cluster.
    since = {"metadata": {"name": "kube-apiserver-legacy-service-account-token-tracking"}}
    ensure("configmaps", "kube-system", {**since, "data": {"since": clock.rfc3339()[:10]}})
    for role in default_roles(config.node_name):
        namespace = role["metadata"].get("namespace", "")
        # A role may have other rules in this version than in the one that created it.
        # An object of a list has no kind of its own.
        made = {name: value for name, value in role.items() if name != "kind"}
        ensure(_KEYS[role["kind"]], namespace, made, functools.partial(with_current_rules, default=made))
    for name, value, what in _PRIORITIES:
        description = f"Used for system critical pods that must {what}."
        priority = {"metadata": {"name": name}, "value": value, "description": description}
        ensure("priorityclasses.scheduling.k8s.io", "", priority)
    for name, spec in LEVELS.items():
        ensure(f"prioritylevelconfigurations.{GROUP}", "", {"metadata": {"name": name}, "spec": spec})
    for name, spec in SCHEMAS.items():
        ensure(f"flowschemas.{GROUP}", "", {"metadata": {"name": name}, "spec": spec})
    # Pods reach the door. Without a router there are none.
    address = doors.api_server(config) if router.is_there(config) else config.addresses["kube"]
    labels = {"component": "apiserver", "provider": "kubernetes"}
    ports = [{"name": "https", "port": 443, "targetPort": address.port}]
    service = {
        "metadata": {"name": "kubernetes", "labels": labels},
        "spec": {"clusterIP": service_address, "ports": ports},
    }
    ensure("services", "default", service, lambda old: _with_ports(old, ports))
    served = {"ports": [{"name": "https", "port": address.port, "protocol": "TCP"}]}
    ready = {"addresses": [address.host], "conditions": {"ready": True}}
    by_slice = {"addressType": "IPv4", "endpoints": [ready], **served}
    endpoints = {
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        **by_slice,
    }
    ensure("endpointslices.discovery.k8s.io", "default", endpoints, lambda old: {**old, **by_slice})
    # The older form, as the API server writes both.
    subsets = {"subsets": [{"addresses": [{"ip": address.host}], **served}]}
    older = {
        "metadata": {"name": "kubernetes", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        **subsets,
    }
    ensure("endpoints", "default", older, lambda old: {**old, **subsets})


async def _ensure(objects: Objects, key: str, namespace: str, obj: Object, change: Change | None = None) -> None:
    """Create an object where it is missing, else apply `change` to it."""
    row, name = BY_KEY[key], obj["metadata"]["name"]
    if not objects.exists(row, namespace, name):
        await objects.create(row, namespace, obj)
    elif change is not None:
        await objects.change(row, namespace, name, change)


def _with_ports(service: Object, ports: list[Object]) -> Object:
    """Return a service whose ports lead to another place. The rest of it stays as it is."""
    stored = service["spec"]["ports"]
    kept = [{**old, **new} for old, new in zip(stored, ports, strict=False)] if len(stored) == len(ports) else ports
    return {**service, "spec": {**service["spec"], "ports": kept}}

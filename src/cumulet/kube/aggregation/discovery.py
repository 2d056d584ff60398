"""Discovery with the resources of aggregated API servers."""

from __future__ import annotations

from collections.abc import Iterable

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.aggregation.servers import Aggregation, Server


def with_versions(document: Object, aggregation: Aggregation) -> Object:
    """Return an `APIGroupDiscoveryList` with the versions of aggregated servers."""
    groups = {item["metadata"].get("name", ""): item for item in document["items"]}
    for server in aggregation.servers:
        group = groups.setdefault(server.group, {"metadata": {"name": server.group}, "versions": []})
        if not any(version["version"] == server.version for version in group["versions"]):
            group["versions"].append(_version(server, aggregation.resources(server)))
    return {**document, "items": list(groups.values())}


def with_groups(document: Object, aggregation: Aggregation) -> Object:
    """Return an `APIGroupList` with the groups of aggregated servers."""
    groups = {item["name"]: item for item in document["groups"]}
    for name in dict.fromkeys(server.group for server in aggregation.servers):
        if (group := group_of(groups.get(name), name, aggregation)) is not None:
            groups[name] = group
    return {**document, "groups": list(groups.values())}


def group_of(here: Object | None, name: str, aggregation: Aggregation) -> Object | None:
    """Return an `APIGroup`; `here` has the versions served here. `None` where the group does not exist."""
    versions = list(here["versions"]) if here is not None else []
    for server in aggregation.servers:
        version = {"groupVersion": server.api_version, "version": server.version}
        if server.group == name and version not in versions:
            versions.append(version)
    if not versions:
        return None
    start = here or {"kind": "APIGroup", "apiVersion": "v1", "name": name, "preferredVersion": versions[0]}
    return {**start, "versions": versions}


def _version(server: Server, resources: Iterable[Object]) -> Object:
    """Return a server's resources as `APIVersionDiscovery`."""
    entries: dict[str, Object] = {}
    for item in resources:
        name, _, part = str(item.get("name", "")).partition("/")
        kind = {"group": item.get("group", ""), "version": item.get("version", ""), "kind": item.get("kind", "")}
        scope = "Namespaced" if item.get("namespaced") else "Cluster"
        entry = entries.setdefault(name, {"resource": name, "scope": scope, "singularResource": "", "verbs": []})
        verbs = item.get("verbs") or []
        if part:
            entry.setdefault("subresources", []).append({"subresource": part, "responseKind": kind, "verbs": verbs})
            continue
        entry |= {"responseKind": kind, "singularResource": item.get("singularName", ""), "verbs": verbs}
        entry |= {key: item[key] for key in ("shortNames", "categories") if item.get(key)}
    return {
        "version": server.version,
        "freshness": "Current" if server.is_available else "Stale",
        "resources": list(entries.values()),
    }

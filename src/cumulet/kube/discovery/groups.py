"""Discovery in its older and its aggregated form, and the server's version."""

from __future__ import annotations

import platform
from collections.abc import Sequence

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.catalog.resources import Row

Rows = Sequence[Row]

GIT_VERSION = "v1.36.0+cumulet"


def version() -> dict[str, str]:
    """Return `/version`."""
    return {
        "major": "1",
        "minor": "36",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"python{platform.python_version()}",
        "compiler": "",
        "platform": "linux/amd64",
    }


def aggregated(rows: Rows, core: bool) -> Object:
    """Return the `APIGroupDiscoveryList` v2 of the core group, or of all others."""
    items: list[Object] = []
    for group in _groups(rows):
        if bool(group) is core:
            continue
        versions = [
            {
                "version": version,
                "freshness": "Current",
                "resources": [_resource(row) for row in rows if (row.group, row.version) == (group, version)],
            }
            for version in _versions(rows, group)
        ]
        items.append({"metadata": {"name": group} if group else {}, "versions": versions})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _resource(row: Row) -> Object:
    entry: Object = {
        "resource": row.plural,
        "responseKind": _kind_beside(row, row.group, row.version, row.kind),
        "scope": "Namespaced" if row.namespaced else "Cluster",
        "singularResource": row.singular,
        "verbs": list(row.verbs),
    }
    if row.short_names:
        entry["shortNames"] = list(row.short_names)
    if row.categories:
        entry["categories"] = list(row.categories)
    if row.subresources:
        entry["subresources"] = [
            {
                "subresource": name,
                "responseKind": _kind_beside(row, *subresource_kind(row, name)),
                "verbs": list(subresource_verbs(name)),
            }
            for name in row.subresources
        ]
    return entry


def paths(rows: Rows) -> list[str]:
    """Return `/`: the paths that this server answers."""
    known = {"/.well-known/openid-configuration", "/api", "/apis", "/healthz", "/livez", "/metrics", "/readyz"}
    known |= {"/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/version"}
    for row in rows:
        known |= {f"/apis/{row.group}", f"/apis/{row.api_version}"} if row.group else {f"/api/{row.version}"}
    return sorted(known)


def group_list(rows: Rows) -> Object:
    """Return `/apis` in the older form."""
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [group_info(rows, group) for group in _groups(rows) if group],
    }


def group_info(rows: Rows, group: str) -> Object:
    """Return one group with its versions."""
    versions = [{"groupVersion": f"{group}/{version}", "version": version} for version in _versions(rows, group)]
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": group,
        "versions": versions,
        "preferredVersion": versions[0],
    }


def resource_list(rows: Rows, group: str, version: str) -> Object | None:
    """Return `/api/v1` or `/apis/apps/v1` in the older form, or `None` where nothing is served there."""
    served = [row for row in rows if (row.group, row.version) == (group, version)]
    if not served:
        return None
    resources: list[Object] = []
    for row in served:
        entry: Object = {
            "name": row.plural,
            "singularName": row.singular,
            "namespaced": row.namespaced,
            "kind": row.kind,
            "verbs": list(row.verbs),
        }
        if row.short_names:
            entry["shortNames"] = list(row.short_names)
        if row.categories:
            entry["categories"] = list(row.categories)
        resources.append(entry)
        for name in row.subresources:
            group_of, version_of, kind = subresource_kind(row, name)
            sub: Object = {
                "name": f"{row.plural}/{name}",
                "singularName": "",
                "namespaced": row.namespaced,
                "kind": kind,
                "verbs": list(subresource_verbs(name)),
            }
            if (group_of, version_of) != (row.group, row.version):
                sub |= {"group": group_of, "version": version_of}
            resources.append(sub)
    api_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": resources}


def _kind_beside(row: Row, group: str, version: str, kind: str) -> dict[str, str]:
    """Return a kind; as in upstream, group and version are empty where they are the resource's own."""
    if (group, version) == (row.group, row.version):
        group = version = ""
    return {"group": group, "kind": kind, "version": version}


_KINDS = {
    "scale": ("autoscaling", "v1", "Scale"),
    "binding": ("", "v1", "Binding"),
    "eviction": ("policy", "v1", "Eviction"),
    "exec": ("", "v1", "PodExecOptions"),
    "attach": ("", "v1", "PodAttachOptions"),
    "portforward": ("", "v1", "PodPortForwardOptions"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
}


def subresource_kind(row: Row, subresource: str) -> tuple[str, str, str]:
    """Return group, version and kind of a sub-resource's body."""
    if subresource == "proxy":
        return "", "v1", f"{row.kind}ProxyOptions"
    return _KINDS.get(subresource, (row.group, row.version, row.kind))


def subresource_verbs(name: str) -> tuple[str, ...]:
    """Return the verbs of a sub-resource."""
    if name in ("binding", "eviction", "token"):
        return ("create",)
    if name in ("exec", "attach", "portforward"):
        return ("create", "get")
    if name == "proxy":
        return ("create", "delete", "get", "patch", "update")
    if name == "log":
        return ("get",)
    if name == "finalize":
        return ("update",)
    return ("get", "patch", "update")


def _groups(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row.group for row in rows))


def _versions(rows: Rows, group: str) -> list[str]:
    return list(dict.fromkeys(row.version for row in rows if row.group == group))

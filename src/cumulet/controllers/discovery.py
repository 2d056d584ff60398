"""Discovery of the resources that a server serves, including custom ones."""

from __future__ import annotations

import logging
from typing import NamedTuple

from cumulet.common.kubernetes import Client, KubernetesError
from cumulet.common.kubernetes.client import AnyResource, Resource

log = logging.getLogger(__name__)


class Served(NamedTuple):
    """A resource and its verbs."""

    resource: AnyResource
    verbs: frozenset[str]


class Discovered(NamedTuple):
    """The resources of a server, and the groups whose resources could not be read."""

    served: list[Served]
    failed: frozenset[str]


async def discover(client: Client) -> list[Served]:
    """Every resource in the preferred version of its group. A group that fails is logged and omitted."""
    return (await discover_all(client)).served


async def discover_all(client: Client) -> Discovered:
    """The same, with the groups that failed."""
    groups = await client.request("GET", "/apis")
    versions = ["v1", *(group["preferredVersion"]["groupVersion"] for group in groups["groups"])]
    served: list[Served] = []
    failed: set[str] = set()
    for version in versions:
        group = version.rpartition("/")[0]
        path = f"/apis/{version}" if group else f"/api/{version}"
        try:
            listed = await client.request("GET", path)
        except KubernetesError as error:
            log.warning("resources of %s not read: %s", path, error)
            failed.add(group)
            continue
        for item in listed["resources"]:
            if "/" not in item["name"]:
                resource: AnyResource = Resource(
                    group, version.rpartition("/")[2], item["name"], item["kind"], item["namespaced"]
                )
                served.append(Served(resource, frozenset(item["verbs"])))
    return Discovered(served, frozenset(failed))

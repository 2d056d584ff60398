"""Which resources a server has, as it says itself; custom ones too."""

from __future__ import annotations

import logging
from typing import NamedTuple

from cumulet.common.kubernetes import Client, KubernetesError, Resource

log = logging.getLogger(__name__)


class Served(NamedTuple):
    """A resource and what can be done with it."""

    resource: Resource
    verbs: frozenset[str]


class Discovered(NamedTuple):
    """What a server has, and the groups that did not say: of these nothing is known."""

    served: list[Served]
    silent: frozenset[str]


async def discover(client: Client) -> list[Served]:
    """Every resource in the preferred version of its group. A group that does not answer is left out, and logged."""
    return (await look(client)).served


async def look(client: Client) -> Discovered:
    """The same, with the groups that did not answer."""
    groups = await client.request("GET", "/apis")
    versions = ["v1", *(group["preferredVersion"]["groupVersion"] for group in groups["groups"])]
    found: list[Served] = []
    silent: set[str] = set()
    for version in versions:
        group = version.rpartition("/")[0]
        path = f"/apis/{version}" if group else f"/api/{version}"
        try:
            listed = await client.request("GET", path)
        except KubernetesError as error:
            log.warning("resources of %s not known: %s", path, error)
            silent.add(group)
            continue
        for item in listed["resources"]:
            if "/" not in item["name"]:
                resource = Resource(group, version.rpartition("/")[2], item["name"], item["kind"], item["namespaced"])
                found.append(Served(resource, frozenset(item["verbs"])))
    return Discovered(found, frozenset(silent))

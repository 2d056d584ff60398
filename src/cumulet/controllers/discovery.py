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


async def discover(client: Client) -> list[Served]:
    """Every resource in the preferred version of its group. A group that does not answer is left out, and logged."""
    groups = await client.request("GET", "/apis")
    paths = ["/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups["groups"])]
    found: list[Served] = []
    for path in paths:
        try:
            listed = await client.request("GET", path)
        except KubernetesError as error:
            log.warning("resources of %s not known: %s", path, error)
            continue
        group, _, version = listed["groupVersion"].rpartition("/")
        for item in listed["resources"]:
            if "/" not in item["name"]:
                resource = Resource(group, version, item["name"], item["kind"], item["namespaced"])
                found.append(Served(resource, frozenset(item["verbs"])))
    return found

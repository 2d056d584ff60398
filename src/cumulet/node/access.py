"""Authorizes clients of the kubelet's API (kubelet `--authorization-mode=Webhook`).

A client presents a certificate. Full access have the API server of the installation's own cluster, which a separate
authority certifies, and members of `system:masters`. For others, as a kubelet does, the node sends a SubjectAccessReview on
`nodes` and a sub-resource to the API server.
"""

from __future__ import annotations

import logging
import time

import aiohttp
from aiohttp import web

from cumulet.common.kubernetes import Client, KubernetesError
from cumulet.common.room import Peer

log = logging.getLogger(__name__)

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_SUBRESOURCES = {"stats": "stats", "metrics": "metrics", "logs": "log"}
_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
#: Seconds for which decisions are cached, allowed or not, and the size of the cache.
_LIFETIMES = {True: 300.0, False: 30.0}
_CACHED = 1024

#: A client, the verb and the sub-resource.
_Request = tuple[Peer, str, str]


class Access:
    """Decides by review, and caches decisions.

    `api_server` is the user name of the API server. Give it only if no other client can have such a certificate.
    """

    def __init__(self, client: Client, node_name: str, api_server: str | None = None) -> None:
        self._client = client
        self._api_server = api_server
        self._node_name = node_name
        self._decisions: dict[_Request, tuple[bool, float]] = {}

    async def refusal(self, peer: Peer, request: web.Request) -> str:
        """Return why the request is forbidden, or an empty string. Raises `HTTPServiceUnavailable`."""
        if peer.user == self._api_server or "system:masters" in peer.groups:
            return ""
        verb = _VERBS.get(request.method, "proxy")
        resource = request.match_info.route.resource
        first = resource.canonical.split("/")[1] if resource is not None else ""
        subresource = _SUBRESOURCES.get(first, "proxy")
        if await self._allowed((peer, verb, subresource)):
            return ""
        return f"Forbidden (user={peer.user}, verb={verb}, resource=nodes, subresource={subresource})"

    async def _allowed(self, review: _Request) -> bool:
        cached = self._decisions.get(review)
        if cached is not None and cached[1] > time.monotonic():
            return cached[0]
        peer, verb, subresource = review
        attributes = {
            "group": "",
            "version": "v1",
            "resource": "nodes",
            "subresource": subresource,
            "name": self._node_name,
            "verb": verb,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": peer.user, "groups": list(peer.groups), "resourceAttributes": attributes},
        }
        try:
            answer = await self._client.request("POST", _REVIEWS, body=body)
        except (KubernetesError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("access review of %s for %s nodes/%s failed: %s", peer.user, verb, subresource, error)
            raise web.HTTPServiceUnavailable(text=f"Authorization error (user={peer.user}): {error}") from None
        allowed = bool((answer.get("status") or {}).get("allowed"))
        if len(self._decisions) >= _CACHED:
            self._decisions.clear()
        self._decisions[review] = allowed, time.monotonic() + _LIFETIMES[allowed]
        return allowed

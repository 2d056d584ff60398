"""Who may use the kubelet's API: the API server, as itself or for whom it says (kubelet `--authorization-mode=Webhook`).

A client shows a certificate. The API server of the installation's own cluster, which an authority of its own certifies, and
members of `system:masters` may do everything. For others the API server is asked, as a kubelet does, by a SubjectAccessReview
on `nodes` and a sub-resource.
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
#: Seconds for which an answer is remembered, yes or no, and of how many.
_REMEMBERED = {True: 300.0, False: 30.0}
_KNOWN = 1024

_Question = tuple[Peer, str, str]


class Access:
    """See the module. `api_server` is the API server's user name, given if no one else can have such a certificate."""

    def __init__(self, client: Client, node_name: str, api_server: str | None = None) -> None:
        self._client = client
        self._api_server = api_server
        self._node_name = node_name
        self._known: dict[_Question, tuple[bool, float]] = {}

    async def refusal(self, peer: Peer, request: web.Request) -> str:
        """Why the request is forbidden, or nothing where it is not. Raises `HTTPServiceUnavailable`."""
        if peer.user == self._api_server or "system:masters" in peer.groups:
            return ""
        verb = _VERBS.get(request.method, "proxy")
        resource = request.match_info.route.resource
        first = resource.canonical.split("/")[1] if resource is not None else ""
        subresource = _SUBRESOURCES.get(first, "proxy")
        if await self._allowed((peer, verb, subresource)):
            return ""
        return f"Forbidden (user={peer.user}, verb={verb}, resource=nodes, subresource={subresource})"

    async def _allowed(self, question: _Question) -> bool:
        known = self._known.get(question)
        if known is not None and known[1] > time.monotonic():
            return known[0]
        peer, verb, subresource = question
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
            log.warning("whether %s may %s nodes/%s: %s", peer.user, verb, subresource, error)
            raise web.HTTPServiceUnavailable(text=f"Authorization error (user={peer.user}): {error}") from None
        allowed = bool((answer.get("status") or {}).get("allowed"))
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[question] = allowed, time.monotonic() + _REMEMBERED[allowed]
        return allowed

"""Service account tokens of pods, renewed as the kubelet's token manager does."""

from __future__ import annotations

import logging
import random
from typing import NamedTuple

import aiohttp

from cumulet.common import clock
from cumulet.common.kubernetes import Client, Informer, KubernetesError
from cumulet.common.kubernetes.objects import (
    PartialObjectMetadata,
    Pod,
    ServiceAccount,
    ServiceAccountTokenProjection,
    TokenRequest,
)
from cumulet.node.errors import MissingError

log = logging.getLogger(__name__)

#: Seconds: the default life of a token, the shortest one, the age at which every token is renewed, the most jitter.
_LIFE, _SHORTEST, _OLDEST, _JITTER = 3600, 600, 24 * 3600, 10.0
#: The part of its life after which a token is renewed.
_PART = 0.8
#: Seconds until the next attempt when a token could not be renewed.
_AGAIN = 10.0

#: Audience and life in seconds.
_Wanted = tuple[str, int]


class _Token(NamedTuple):
    text: str
    #: The uid of the service account; tokens of an account that is made anew are not accepted.
    account: str | None
    #: Seconds of the epoch.
    renewed_at: float
    expires_at: float


class Tokens:
    """The tokens of pods by uid."""

    def __init__(self, client: Client, accounts: Informer[ServiceAccount]) -> None:
        self._client = client
        self._accounts = accounts
        self._tokens: dict[str, dict[_Wanted, _Token]] = {}

    async def token(self, pod: Pod, source: ServiceAccountTokenProjection) -> str:
        """Return a token that is not due to be renewed. Raises `MissingError`."""
        wanted = source.get("audience", ""), max(source.get("expirationSeconds") or _LIFE, _SHORTEST)
        tokens = self._tokens.setdefault(pod["metadata"]["uid"], {})
        old, now = tokens.get(wanted), clock.now().timestamp()
        stale = old is not None and self._is_stale(pod, old)
        if old is not None and not stale and now < old.renewed_at:
            return old.text
        try:
            tokens[wanted] = await self._request(pod, *wanted)
        except (KubernetesError, aiohttp.ClientError, TimeoutError) as error:
            if old is None or stale or now >= old.expires_at:
                raise MissingError(f"failed to fetch token: {error}", again=_AGAIN) from None
            log.warning("pod %s keeps its token: %s", pod["metadata"]["name"], error)
            tokens[wanted] = old._replace(renewed_at=now + _AGAIN)
        return tokens[wanted].text

    def due_in(self, pod: Pod) -> float | None:
        """Return the seconds until a token of the pod is renewed, or `None` if it has none."""
        tokens = self._tokens.get(pod["metadata"]["uid"], {}).values()
        if any(self._is_stale(pod, token) for token in tokens):
            return 0.0
        due = min((token.renewed_at for token in tokens), default=None)
        return None if due is None else max(due - clock.now().timestamp(), 0.0)

    def forget(self, uid: str) -> None:
        """Forget the tokens of a pod that is gone."""
        self._tokens.pop(uid, None)

    def _is_stale(self, pod: Pod, token: _Token) -> bool:
        """Return whether the service account was made anew since the token was issued."""
        account = self._account(pod)
        return None not in (account, token.account) and token.account != account

    def _account(self, pod: Pod) -> str | None:
        """Return the uid of the pod's service account, or `None` while it is missing."""
        account = self._accounts.get(_account_name(pod), pod["metadata"]["namespace"])
        return account["metadata"]["uid"] if account is not None else None

    async def _request(self, pod: Pod, audience: str, life: int) -> _Token:
        metadata = pod["metadata"]
        body: TokenRequest = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "expirationSeconds": life,
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                },
            },
        }
        if audience:
            body["spec"]["audiences"] = [audience]
        path = f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{_account_name(pod)}/token"
        account = self._account(pod)
        answer = await self._client.request("POST", path, body=body)
        expires_at = clock.parse(answer["status"]["expirationTimestamp"]).timestamp()
        granted = answer["spec"].get("expirationSeconds") or life
        renewed_at = renewal(expires_at, granted) - random.random() * _JITTER
        return _Token(answer["status"]["token"], account, renewed_at, expires_at)


def renewal(expires_at: float, life: int) -> float:
    """Return when a token is renewed: after 80 % of its life, or after 24 hours. Times are in seconds of the epoch."""
    return expires_at - life + min(life * _PART, _OLDEST)


def _account_name(pod: Pod) -> str:
    return pod["spec"].get("serviceAccountName") or "default"


def uses_account(pod: Pod, account: PartialObjectMetadata) -> bool:
    """Return whether a pod has that service account."""
    metadata = account["metadata"]
    return (pod["metadata"]["namespace"], _account_name(pod)) == (metadata["namespace"], metadata["name"])

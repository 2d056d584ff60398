"""Tokens of service accounts in secrets (`pkg/controller/serviceaccount`, tokens controller).

A secret of the type `kubernetes.io/service-account-token` gets a token of the account that it names, the authority of the API
server, and the namespace. The token is bound to the secret and is valid until the secret is deleted. The secret is deleted
with the account.
"""

from __future__ import annotations

import base64

from cumulet.common.kubernetes import Informer, KubernetesError, WorkQueue, suppress_stale
from cumulet.common.kubernetes.client import SECRETS, SERVICEACCOUNTS
from cumulet.common.kubernetes.objects import BoundObjectReference, Secret, ServiceAccount, TokenRequest
from cumulet.controllers.controller import Context, Key, key_of

_TYPE = "kubernetes.io/service-account-token"
_NAME, _UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"
#: The longest validity of a token in seconds that an API server allows, which is 136 years.
_LONGEST = 2**32


class TokenController:
    """The controller of token secrets. Its keys are those of secrets."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._accounts = context.informer(SERVICEACCOUNTS)
        self._secrets = Informer(context.client, SECRETS, field_selector=f"type={_TYPE}")
        self._secrets.add_index("account", _account_of)
        self._secrets.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._accounts.add_handler(self._account_changed)
        context.tasks.start(self._secrets.run(), "informer of token secrets")

    def _account_changed(self, change: str, account: ServiceAccount, old: ServiceAccount | None) -> None:
        for secret in self._secrets.indexed("account", key_of(account)):
            self.queue.add(key_of(secret))

    async def reconcile(self, key: Key) -> None:
        """Fill in a secret, or delete it if its account is gone."""
        secret = self._secrets.get(key[1], key[0])
        if secret is None or secret["metadata"].get("deletionTimestamp") or not self._accounts.synced.is_set():
            return
        annotations = secret["metadata"].get("annotations") or {}
        account = await self._account(annotations.get(_NAME, ""), key[0])
        if account is None or annotations.get(_UID, account["metadata"]["uid"]) != account["metadata"]["uid"]:
            await self._delete(secret)
            return
        data = secret.get("data") or {}
        desired = {"namespace": _encoded(key[0])}
        authority = self._client.kubeconfig.authority  # it can be renewed while the room runs
        if authority is not None:
            desired["ca.crt"] = base64.b64encode(authority).decode()
        is_complete = "token" in data and all(data.get(name) == value for name, value in desired.items())
        if is_complete and annotations.get(_UID):
            return
        if "token" not in data:
            desired["token"] = _encoded(await self._token(secret, account["metadata"]["name"]))
        metadata = {
            "uid": secret["metadata"]["uid"],
            "resourceVersion": secret["metadata"]["resourceVersion"],
            "annotations": {_UID: account["metadata"]["uid"]},
        }
        await self._client.patch(SECRETS, key[1], {"metadata": metadata, "data": desired}, key[0])

    async def _account(self, name: str, namespace: str) -> ServiceAccount | None:
        """Read an account, from the server if the informer does not have it, because it can be new."""
        known = self._accounts.get(name, namespace)
        if known is not None or not name:
            return known
        try:
            return await self._client.get(SERVICEACCOUNTS, name, namespace)
        except KubernetesError as error:
            if error.code != 404:
                raise
            return None

    async def _token(self, secret: Secret, account: str) -> str:
        namespace, metadata = secret["metadata"]["namespace"], secret["metadata"]
        bound: BoundObjectReference = {
            "apiVersion": "v1",
            "kind": "Secret",
            "name": metadata["name"],
            "uid": metadata["uid"],
        }
        body: TokenRequest = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": _LONGEST, "boundObjectRef": bound},
        }
        path = f"{SERVICEACCOUNTS.path(namespace, account)}/token"
        answer: TokenRequest = await self._client.request("POST", path, body=body)
        return answer["status"]["token"]

    async def _delete(self, secret: Secret) -> None:
        metadata = secret["metadata"]
        with suppress_stale():
            await self._client.delete(SECRETS, metadata["name"], metadata["namespace"], uid=metadata["uid"])


def _account_of(secret: Secret) -> tuple[Key, ...]:
    name = (secret["metadata"].get("annotations") or {}).get(_NAME)
    return ((secret["metadata"]["namespace"], name),) if name else ()


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()

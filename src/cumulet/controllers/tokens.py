"""Tokens of service accounts in secrets (`pkg/controller/serviceaccount`, tokens controller).

A secret of the type `kubernetes.io/service-account-token` that names an account gets its token, which is bound to the
secret and lasts as long, the authority of the API server, and the namespace. With the account it goes.
"""

from __future__ import annotations

import base64

from cumulet.common.kubernetes import Informer, KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import SECRETS, SERVICEACCOUNTS
from cumulet.controllers.controller import Context, Key, Object, key_of

_TYPE = "kubernetes.io/service-account-token"
_NAME, _UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"
#: The most seconds that an API server gives a token for, which is 136 years.
_FOR_EVER = 2**32


class TokenController:
    """One key a secret."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._authority = context.client.kubeconfig.authority
        self._accounts = context.informer(SERVICEACCOUNTS)
        self._secrets = Informer(context.client, SECRETS, field_selector=f"type={_TYPE}")
        self._secrets.add_index("account", _account_of)
        self._secrets.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._accounts.add_handler(self._account_changed)
        context.tasks.start(self._secrets.run(), "informer of token secrets")

    def _account_changed(self, change: str, account: Object, old: Object | None) -> None:
        for secret in self._secrets.indexed("account", key_of(account)):
            self.queue.add(key_of(secret))

    async def reconcile(self, key: Key) -> None:
        """Fill in a secret, or delete it where its account is gone."""
        secret = self._secrets.get(key[1], key[0])
        if secret is None or secret["metadata"].get("deletionTimestamp") or not self._accounts.synced.is_set():
            return
        annotations = secret["metadata"].get("annotations") or {}
        account = await self._account(annotations.get(_NAME, ""), key[0])
        if account is None or annotations.get(_UID, account["metadata"]["uid"]) != account["metadata"]["uid"]:
            await self._delete(secret)
            return
        data = secret.get("data") or {}
        wanted = {"namespace": _encoded(key[0])}
        if self._authority is not None:
            wanted["ca.crt"] = base64.b64encode(self._authority).decode()
        is_whole = "token" in data and all(data.get(name) == value for name, value in wanted.items())
        if is_whole and annotations.get(_UID):
            return
        if "token" not in data:
            wanted["token"] = _encoded(await self._token(secret, account["metadata"]["name"]))
        metadata = {
            "uid": secret["metadata"]["uid"],
            "resourceVersion": secret["metadata"]["resourceVersion"],
            "annotations": {_UID: account["metadata"]["uid"]},
        }
        await self._client.patch(SECRETS, key[1], {"metadata": metadata, "data": wanted}, key[0])

    async def _account(self, name: str, namespace: str) -> Object | None:
        """An account, asked for where it was not seen yet: it may be as new as its secret."""
        found = self._accounts.get(name, namespace)
        if found is not None or not name:
            return found
        try:
            asked: Object = await self._client.request("GET", SERVICEACCOUNTS.path(namespace, name))
        except KubernetesError as error:
            if error.code != 404:
                raise
            return None
        return asked

    async def _token(self, secret: Object, account: str) -> str:
        namespace, metadata = secret["metadata"]["namespace"], secret["metadata"]
        bound = {"apiVersion": "v1", "kind": "Secret", "name": metadata["name"], "uid": metadata["uid"]}
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": _FOR_EVER, "boundObjectRef": bound},
        }
        path = f"{SERVICEACCOUNTS.path(namespace, account)}/token"
        answer = await self._client.request("POST", path, body=body)
        token: str = answer["status"]["token"]
        return token

    async def _delete(self, secret: Object) -> None:
        metadata = secret["metadata"]
        try:
            await self._client.delete(SECRETS, metadata["name"], metadata["namespace"], uid=metadata["uid"])
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise


def _account_of(secret: Object) -> tuple[Key, ...]:
    name = (secret["metadata"].get("annotations") or {}).get(_NAME)
    return ((secret["metadata"]["namespace"], name),) if name else ()


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()

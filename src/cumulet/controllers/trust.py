"""Publishes the authorities that pods with workload identity trust: the machine's, and that of the installation.

Admission mounts the config map into such pods, in place of a Microsoft certificate that every image trusts. It is made in the
namespaces that have such a pod, because it has some 200 kB.
"""

from __future__ import annotations

from cumulet.common.kubernetes import KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import CONFIGMAPS, PODS
from cumulet.common.kubernetes.objects import ConfigMap, PartialObjectMetadata
from cumulet.controllers.controller import Context, Key

_MAP, _FILE = "azure-ca-bundle", "ca-bundle.crt"
_USE = "azure.workload.identity/use"


class TrustController:
    """Keeps the config map in every namespace that needs it."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._bundle = context.trust_bundle
        self._pods = context.informer(PODS)
        self._pods.add_handler(lambda change, pod, old: self._added(change, pod))
        self._maps = context.informer(CONFIGMAPS)
        self._maps.add_handler(lambda change, obj, old: self._changed(change, obj))

    def _added(self, change: str, pod: PartialObjectMetadata) -> None:
        if change != "DELETED" and _uses(pod):
            self.queue.add(("", pod["metadata"]["namespace"]))

    def _changed(self, change: str, obj: PartialObjectMetadata) -> None:
        metadata = obj["metadata"]
        if metadata["name"] == _MAP and change != "ADDED":
            self.queue.add(("", metadata["namespace"]))

    async def reconcile(self, key: Key) -> None:
        """Create or correct the config map of a namespace with such a pod."""
        namespace = key[1]
        if self._bundle is None or not any(map(_uses, self._pods.indexed("namespace", namespace))):
            return
        data = {_FILE: self._bundle.read_text()}
        known = self._maps.get(_MAP, namespace)
        try:
            if known is None:
                made: ConfigMap = {"metadata": {"name": _MAP, "namespace": namespace}, "data": data}
                await self._client.create(CONFIGMAPS, made)
            elif known.get("data") != data:
                await self._client.patch(CONFIGMAPS, _MAP, {"data": data}, namespace)
        except KubernetesError as error:
            if error.reason not in ("AlreadyExists", "Forbidden", "NotFound"):
                raise


def _uses(pod: PartialObjectMetadata) -> bool:
    return (pod["metadata"].get("labels") or {}).get(_USE) == "true"

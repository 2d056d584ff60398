"""The claims of the pods of stateful sets: created before the pod, and retained or deleted by the retention policy."""

from __future__ import annotations

from cumulet.common.kubernetes import EventRecorder, KubernetesError
from cumulet.common.kubernetes.client import PERSISTENTVOLUMECLAIMS, PODS, STATEFULSETS, AnyResource
from cumulet.common.kubernetes.objects import (
    OwnerReference,
    PartialObjectMetadata,
    Pod,
    StatefulSet,
    StatefulSetPersistentVolumeClaimRetentionPolicy,
)
from cumulet.controllers.controller import Context
from cumulet.controllers.statefulset.identity import make_claims


class Claims:
    """Creates claims, and transfers their ownership."""

    def __init__(self, context: Context, events: EventRecorder) -> None:
        self._client = context.client
        self._events = events
        self._claims = context.informer(PERSISTENTVOLUMECLAIMS)

    async def ensure(self, statefulset: StatefulSet, pod_name: str) -> None:
        """Create the missing claims of a pod. Raises `KubernetesError` after an event, `ClaimGoingError`."""
        about = f"Pod {pod_name} in StatefulSet {statefulset['metadata']['name']}"
        for claim in make_claims(statefulset, pod_name):
            metadata = claim["metadata"]
            known = self._claims.get(metadata["name"], metadata["namespace"])
            if known is not None:
                if known["metadata"].get("deletionTimestamp"):
                    raise ClaimGoingError(f"the claim {metadata['name']} is being deleted")
                continue
            if _policy(statefulset).get("whenDeleted") == "Delete":
                metadata["ownerReferences"] = [_reference(statefulset, STATEFULSETS)]
            try:
                await self._client.create(PERSISTENTVOLUMECLAIMS, claim)
            except KubernetesError as error:
                if error.reason == "AlreadyExists":
                    continue
                message = f"Create Claim {metadata['name']} for {about} failed error: {error}"
                self._events.event(statefulset, "Warning", "FailedCreate", message)
                raise
            message = f"Create Claim {metadata['name']} {about} success"
            self._events.event(statefulset, "Normal", "SuccessfulCreate", message)

    async def transfer(self, statefulset: StatefulSet, pod: Pod) -> None:
        """Make a pod that is scaled down the owner of its claims, if the retention policy is Delete."""
        if _policy(statefulset).get("whenScaled") != "Delete":
            return
        for claim in make_claims(statefulset, pod["metadata"]["name"]):
            known = self._claims.get(claim["metadata"]["name"], claim["metadata"]["namespace"])
            if known is None:
                continue
            references = known["metadata"].get("ownerReferences") or []
            if any(item["uid"] == pod["metadata"]["uid"] for item in references):
                continue
            kept = [item for item in references if item["kind"] not in ("Pod", "StatefulSet")]
            metadata = {
                "resourceVersion": known["metadata"]["resourceVersion"],
                "ownerReferences": [*kept, _reference(pod, PODS)],
            }
            await self._client.patch(
                PERSISTENTVOLUMECLAIMS,
                known["metadata"]["name"],
                {"metadata": metadata},
                known["metadata"]["namespace"],
            )


class ClaimGoingError(Exception):
    """A claim with the name is still terminating. The pod waits for a new one."""


def _policy(statefulset: StatefulSet) -> StatefulSetPersistentVolumeClaimRetentionPolicy:
    return statefulset["spec"].get("persistentVolumeClaimRetentionPolicy") or {}


def _reference(owner: PartialObjectMetadata, resource: AnyResource) -> OwnerReference:
    metadata = owner["metadata"]
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
    }

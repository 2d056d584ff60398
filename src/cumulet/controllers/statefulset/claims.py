"""The claims of a stateful set's pods: made before the pod, and kept or deleted as the retention policy says."""

from __future__ import annotations

from cumulet.common.kubernetes import EventRecorder, KubernetesError
from cumulet.common.kubernetes.client import PERSISTENTVOLUMECLAIMS, PODS, STATEFULSETS, Resource
from cumulet.controllers.controller import Context, Object
from cumulet.controllers.statefulset.identity import make_claims


class Claims:
    """See the module."""

    def __init__(self, context: Context, events: EventRecorder) -> None:
        self._client = context.client
        self._events = events
        self._claims = context.informer(PERSISTENTVOLUMECLAIMS)

    async def ensure(self, statefulset: Object, pod_name: str) -> None:
        """Make the claims that a pod lacks. Raises `KubernetesError`, after an event."""
        about = f"Pod {pod_name} in StatefulSet {statefulset['metadata']['name']}"
        for claim in make_claims(statefulset, pod_name):
            metadata = claim["metadata"]
            known = self._claims.get(metadata["name"], metadata["namespace"])
            if known is not None:
                if known["metadata"].get("deletionTimestamp"):
                    raise ClaimGoingError(f"the claim {metadata['name']} is being deleted")
                continue
            if _policy(statefulset, "whenDeleted") == "Delete":
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

    async def hand_to(self, statefulset: Object, pod: Object) -> None:
        """Before a pod is scaled away: let its claims go with it, where the policy says so."""
        if _policy(statefulset, "whenScaled") != "Delete":
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
    """A claim of the wanted name is still on its way out: the pod waits for a new one."""


def _policy(statefulset: Object, when: str) -> str:
    found: str = (statefulset["spec"].get("persistentVolumeClaimRetentionPolicy") or {}).get(when, "Retain")
    return found


def _reference(owner: Object, resource: Resource) -> Object:
    metadata = owner["metadata"]
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
    }

"""The identity of the pods of a stateful set: ordinal, name, revision, claims."""

from __future__ import annotations

import re

from cumulet.common.kubernetes.objects import ControllerRevision, ObjectMeta, PersistentVolumeClaim, Pod, StatefulSet
from cumulet.controllers.pods import from_template
from cumulet.controllers.revisions import HASH_LABEL, template_of

_NAME = re.compile(r"(.*)-(\d+)", re.ASCII)


def ordinal_of(statefulset: StatefulSet, pod: Pod) -> int | None:
    """The ordinal in the name of a pod, or `None` if the name is not one of the set."""
    match = _NAME.fullmatch(pod["metadata"]["name"])
    return int(match[2]) if match is not None and match[1] == statefulset["metadata"]["name"] else None


def start_of(statefulset: StatefulSet) -> int:
    """The first ordinal."""
    return (statefulset["spec"].get("ordinals") or {}).get("start", 0)


def revision_of(pod: Pod) -> str:
    """The name of the ControllerRevision from which a pod was created."""
    return (pod["metadata"].get("labels") or {}).get(HASH_LABEL, "")


def make_pod(statefulset: StatefulSet, ordinal: int, revision: ControllerRevision) -> Pod:
    """The pod of an ordinal, from the template of a revision."""
    name = f"{statefulset['metadata']['name']}-{ordinal}"
    pod = from_template(template_of(revision), name=name)
    # The name is not generated, but upstream sets this field too.
    pod["metadata"]["generateName"] = f"{statefulset['metadata']['name']}-"
    pod["metadata"]["labels"] = {
        **pod["metadata"].get("labels", {}),
        HASH_LABEL: revision["metadata"]["name"],
        "statefulset.kubernetes.io/pod-name": name,
        "apps.kubernetes.io/pod-index": str(ordinal),
    }
    claimed = {claim["metadata"]["name"] for claim in statefulset["spec"].get("volumeClaimTemplates") or ()}
    volumes = [item for item in pod["spec"].get("volumes") or () if item["name"] not in claimed]
    volumes += [
        {"name": template, "persistentVolumeClaim": {"claimName": claim_name(template, name), "readOnly": False}}
        for template in sorted(claimed)
    ]
    pod["spec"] = {**pod["spec"], "hostname": name, "subdomain": statefulset["spec"].get("serviceName", "")}
    if volumes:
        pod["spec"]["volumes"] = volumes
    return pod


def claim_name(template: str, pod: str) -> str:
    """The name of the claim of a pod for a claim template."""
    return f"{template}-{pod}"


def make_claims(statefulset: StatefulSet, pod_name: str) -> list[PersistentVolumeClaim]:
    """The claims of a pod."""
    labels = (statefulset["spec"].get("selector") or {}).get("matchLabels") or {}
    claims: list[PersistentVolumeClaim] = []
    for template in statefulset["spec"].get("volumeClaimTemplates") or ():
        metadata: ObjectMeta = {
            "name": claim_name(template["metadata"]["name"], pod_name),
            "namespace": statefulset["metadata"]["namespace"],
            "labels": {**(template["metadata"].get("labels") or {}), **labels},
        }
        if template["metadata"].get("annotations"):
            metadata["annotations"] = template["metadata"]["annotations"]
        claims.append({"metadata": metadata, "spec": template["spec"]})
    return claims

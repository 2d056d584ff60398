"""What makes a stateful set's pod that pod: its ordinal, its name, its revision, its claims."""

from __future__ import annotations

import re

from cumulet.controllers.controller import Object
from cumulet.controllers.pods import from_template
from cumulet.controllers.revisions import HASH_LABEL, template_of

_NAME = re.compile(r"(.*)-(\d+)", re.ASCII)


def ordinal_of(statefulset: Object, pod: Object) -> int | None:
    """The number in a pod's name, where it is a name of that set's."""
    match = _NAME.fullmatch(pod["metadata"]["name"])
    return int(match[2]) if match is not None and match[1] == statefulset["metadata"]["name"] else None


def start_of(statefulset: Object) -> int:
    """The first ordinal."""
    found: int = (statefulset["spec"].get("ordinals") or {}).get("start", 0)
    return found


def revision_of(pod: Object) -> str:
    """The name of the ControllerRevision that a pod was made from."""
    found: str = (pod["metadata"].get("labels") or {}).get(HASH_LABEL, "")
    return found


def make_pod(statefulset: Object, ordinal: int, revision: Object) -> Object:
    """The pod of an ordinal, from the template of a revision."""
    name = f"{statefulset['metadata']['name']}-{ordinal}"
    pod = from_template(template_of(revision), name=name)
    # Nothing is generated of it; upstream's pods have it all the same.
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
    """The name of the claim that a pod has by a template."""
    return f"{template}-{pod}"


def make_claims(statefulset: Object, pod_name: str) -> list[Object]:
    """The claims of a pod."""
    labels = (statefulset["spec"].get("selector") or {}).get("matchLabels") or {}
    claims = []
    for template in statefulset["spec"].get("volumeClaimTemplates") or ():
        metadata = {
            **{name: template["metadata"][name] for name in ("annotations",) if template["metadata"].get(name)},
            "name": claim_name(template["metadata"]["name"], pod_name),
            "namespace": statefulset["metadata"]["namespace"],
            "labels": {**(template["metadata"].get("labels") or {}), **labels},
        }
        claims.append({"metadata": metadata, "spec": template["spec"]})
    return claims

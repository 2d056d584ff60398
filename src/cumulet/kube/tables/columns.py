"""The columns of each resource, as in Kubernetes 1.36.

A star marks the columns of `-o wide`, a `#` integers, a `?` booleans.
"""

from __future__ import annotations

import functools
import importlib.resources

import msgspec

from cumulet.common.kubernetes.objects import Object

_COLUMNS = {
    "configmaps": "Name|Data|Age",
    "endpoints": "Name|Endpoints|Age",
    "events": "Last Seen|Type|Reason|Object|*Subobject|*Source|Message|*First Seen|*Count|*Name",
    "namespaces": "Name|Status|Age",
    "nodes": "Name|Status|Roles|Age|Version|*Internal-IP|*External-IP|*OS-Image|*Kernel-Version|*Container-Runtime",
    "persistentvolumeclaims": (
        "Name|Status|Volume|Capacity|Access Modes|StorageClass|VolumeAttributesClass|Age|*VolumeMode"
    ),
    "persistentvolumes": (
        "Name|Capacity|Access Modes|Reclaim Policy|Status|Claim|StorageClass|VolumeAttributesClass|Reason|Age|*VolumeMode"
    ),
    "pods": "Name|Ready|Status|Restarts|Age|*IP|*Node|*Nominated Node|*Readiness Gates",
    "replicationcontrollers": "Name|#Desired|#Current|#Ready|Age|*Containers|*Images|*Selector",
    "secrets": "Name|Type|Data|Age",
    "podtemplates": "Name|Containers|Images|Pod Labels",
    "resourcequotas": "Name|Request|Limit|Age",
    "serviceaccounts": "Name|Age",
    "services": "Name|Type|Cluster-IP|External-IP|Port(s)|Age|*Selector",
    "controllerrevisions.apps": "Name|Controller|Revision|Age",
    "daemonsets.apps": (
        "Name|#Desired|#Current|#Ready|#Up-to-date|#Available|Node Selector|Age|*Containers|*Images|*Selector"
    ),
    "deployments.apps": "Name|Ready|Up-to-date|Available|Age|*Containers|*Images|*Selector",
    "replicasets.apps": "Name|#Desired|#Current|#Ready|Age|*Containers|*Images|*Selector",
    "statefulsets.apps": "Name|Ready|Age|*Containers|*Images",
    "horizontalpodautoscalers.autoscaling": "Name|Reference|Targets|MinPods|MaxPods|Replicas|Age",
    "cronjobs.batch": "Name|Schedule|Timezone|?Suspend|#Active|Last Schedule|Age|*Containers|*Images|*Selector",
    "jobs.batch": "Name|Status|Completions|Duration|Age|*Containers|*Images|*Selector",
    "leases.coordination.k8s.io": "Name|Holder|Age",
    "endpointslices.discovery.k8s.io": "Name|AddressType|Ports|Endpoints|Age",
    "ingressclasses.networking.k8s.io": "Name|Controller|Parameters|Age",
    "ingresses.networking.k8s.io": "Name|Class|Hosts|Address|Ports|Age",
    "networkpolicies.networking.k8s.io": "Name|Pod-Selector|Age",
    "poddisruptionbudgets.policy": "Name|Min Available|Max Unavailable|#Allowed Disruptions|Age",
    "clusterrolebindings.rbac.authorization.k8s.io": "Name|Role|Age|*Users|*Groups|*ServiceAccounts",
    "rolebindings.rbac.authorization.k8s.io": "Name|Role|Age|*Users|*Groups|*ServiceAccounts",
    "certificatesigningrequests.certificates.k8s.io": ("Name|Age|SignerName|Requestor|RequestedDuration|Condition"),
    "ipaddresses.networking.k8s.io": "Name|ParentRef",
    "servicecidrs.networking.k8s.io": "Name|CIDRs|Age",
    "csidrivers.storage.k8s.io": (
        "Name|?AttachRequired|?PodInfoOnMount|?StorageCapacity|TokenRequests|?RequiresRepublish|Modes|Age"
    ),
    "csinodes.storage.k8s.io": "Name|#Drivers|Age",
    "volumeattachments.storage.k8s.io": "Name|Attacher|PV|Node|?Attached|Age",
    "volumeattributesclasses.storage.k8s.io": "Name|DriverName|Age",
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": "Name|#Webhooks|Age",
    "validatingwebhookconfigurations.admissionregistration.k8s.io": "Name|#Webhooks|Age",
    "mutatingadmissionpolicies.admissionregistration.k8s.io": "Name|#Mutations|ParamKind|Age",
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io": "Name|PolicyName|ParamRef|Age",
    "validatingadmissionpolicies.admissionregistration.k8s.io": "Name|#Validations|ParamKind|Age",
    "validatingadmissionpolicybindings.admissionregistration.k8s.io": "Name|PolicyName|ParamRef|Age",
    "apiservices.apiregistration.k8s.io": "Name|Service|Available|Age",
    "runtimeclasses.node.k8s.io": "Name|Handler|Age",
    "deviceclasses.resource.k8s.io": "Name|Age",
    "resourceclaims.resource.k8s.io": "Name|State|Age",
    "resourceclaimtemplates.resource.k8s.io": "Name|Age",
    "resourceslices.resource.k8s.io": "Name|Node|Driver|Pool|Age",
    "flowschemas.flowcontrol.apiserver.k8s.io": (
        "Name|PriorityLevel|MatchingPrecedence|DistinguisherMethod|Age|MissingPL"
    ),
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": (
        "Name|Type|NominalConcurrencyShares|Queues|HandSize|QueueLengthLimit|Age"
    ),
    "priorityclasses.scheduling.k8s.io": "Name|#Value|?Global-Default|Age|PreemptionPolicy",
    "storageclasses.storage.k8s.io": "Name|Provisioner|ReclaimPolicy|VolumeBindingMode|AllowVolumeExpansion|Age",
}


_MARKS = {"#": "integer", "?": "boolean"}


@functools.cache
def columns_of(resource: str) -> list[Object]:
    """Return the column definitions of a resource; by default its name and creation time."""
    parts = _COLUMNS.get(resource, "Name|Created At").split("|")
    texts, of = _descriptions()
    places = of.get(resource) or (of["limitranges"] if resource not in _COLUMNS else ())
    described = [texts[place] for place in places] or [part.lstrip("*#?") for part in parts]
    return [_column(part, text) for part, text in zip(parts, described, strict=True)]


@functools.cache
def _descriptions() -> tuple[list[str], dict[str, list[int]]]:
    """Return the texts of column descriptions, and for each resource the indexes of its texts."""
    raw = importlib.resources.files(__package__).joinpath("descriptions.json").read_bytes()
    descriptions = msgspec.json.decode(raw)
    return descriptions["texts"], descriptions["of"]


def _column(text: str, description: str) -> Object:
    name = text.lstrip("*#?")
    kind = next((kind for mark, kind in _MARKS.items() if mark in text[:2]), "string")
    if name == "Created At":
        kind = "date"
    return {
        "name": name,
        "type": kind,
        "format": "name" if name in ("Name", "Attacher") else "",
        "description": description,
        "priority": 1 if text.startswith("*") else 0,
    }

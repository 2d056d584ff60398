"""The cells of less common kinds."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.duration import age, duration
from cumulet.kube.tables.common import Cell, Cells
from cumulet.kube.tables.text import join, selector_text


def _age(obj: Object, now: datetime) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def _spec(obj: Object, name: str, default: Any = "") -> Any:
    value = (obj.get("spec") or {}).get(name)
    return default if value is None else value


def _truth(value: object) -> str:
    return "true" if value else "false"


def _pod_template(obj: Object, now: datetime) -> list[Cell]:
    template = obj.get("template") or {}
    containers = (template.get("spec") or {}).get("containers") or []
    labels = selector_text((template.get("metadata") or {}).get("labels"))
    return [*(join(item.get(key, "") for item in containers) for key in ("name", "image")), labels]


def _policy(obj: Object, now: datetime) -> list[Cell]:
    kind = _spec(obj, "paramKind", {})
    shown = f"{kind.get('apiVersion', '')}/{kind.get('kind', '')}" if kind else "<unset>"
    rules = _spec(obj, "validations", ()) or _spec(obj, "mutations", ())
    return [len(rules), shown, _age(obj, now)]


def _policy_binding(obj: Object, now: datetime) -> list[Cell]:
    reference = _spec(obj, "paramRef", {})
    shown = (
        "/".join(filter(None, (reference.get("namespace"), reference.get("name", "*")))) if reference else "<unset>"
    )
    return [_spec(obj, "policyName"), shown, _age(obj, now)]


def _quota(obj: Object, now: datetime) -> list[Cell]:
    status = obj.get("status") or {}
    hard, used = status.get("hard") or _spec(obj, "hard", {}), status.get("used") or {}
    shown: tuple[list[str], list[str]] = ([], [])
    for name in sorted(hard):
        shown[name.startswith("limits.")].append(f"{name}: {used.get(name, 0)}/{hard[name]}")
    return [", ".join(shown[0]), ", ".join(shown[1]), _age(obj, now)]


def _signing_request(obj: Object, now: datetime) -> list[Cell]:
    status = obj.get("status") or {}
    names = [item.get("type", "") for item in status.get("conditions") or ()]
    condition = join(names) or "Pending"
    if status.get("certificate"):
        condition += ",Issued"
    seconds = _spec(obj, "expirationSeconds", 0)
    requested = duration(seconds) if seconds else "<none>"
    return [_age(obj, now), _spec(obj, "signerName"), _spec(obj, "username"), requested, condition]


def _address(obj: Object, now: datetime) -> list[Cell]:
    parent = _spec(obj, "parentRef", {})
    parts = [parent.get(key) for key in ("group", "resource", "namespace", "name")]
    return ["/".join(part for part in parts if part).replace("/", ".", bool(parent.get("group")))]


def _driver(obj: Object, now: datetime) -> list[Cell]:
    spec = obj.get("spec") or {}
    audiences = join(item.get("audience", "") for item in spec.get("tokenRequests") or ()) or "<unset>"
    truths = [bool(spec.get(key, default)) for key, default in _DRIVER]
    modes = join(spec.get("volumeLifecycleModes") or ("Persistent",))
    return [*truths, audiences, bool(spec.get("requiresRepublish")), modes, _age(obj, now)]


_DRIVER = (("attachRequired", True), ("podInfoOnMount", False), ("storageCapacity", False))


def _attachment(obj: Object, now: datetime) -> list[Cell]:
    volume = _spec(obj, "source", {}).get("persistentVolumeName", "")
    attached = _truth((obj.get("status") or {}).get("attached"))
    return [_spec(obj, "attacher"), volume, _spec(obj, "nodeName"), attached, _age(obj, now)]


def _flow(obj: Object, now: datetime) -> list[Cell]:
    level = _spec(obj, "priorityLevelConfiguration", {}).get("name", "<none>")
    method = _spec(obj, "distinguisherMethod", {}).get("type", "<none>")
    conditions = (obj.get("status") or {}).get("conditions") or ()
    dangling = next((item.get("status") for item in conditions if item.get("type") == "Dangling"), "?")
    return [level, _spec(obj, "matchingPrecedence", 1000), method, _age(obj, now), dangling]


def _level(obj: Object, now: datetime) -> list[Cell]:
    limited = _spec(obj, "limited", {})
    queuing = (limited.get("limitResponse") or {}).get("queuing") or {}
    numbers = [queuing.get(key, "<none>") for key in ("queues", "handSize", "queueLengthLimit")]
    shares = limited.get("nominalConcurrencyShares", "<none>")
    return [_spec(obj, "type"), shares, *numbers, _age(obj, now)]


def _claim(obj: Object, now: datetime) -> list[Cell]:
    status = obj.get("status") or {}
    states = ["allocated"] * ("allocation" in status) + ["reserved"] * bool(status.get("reservedFor"))
    if obj["metadata"].get("deletionTimestamp"):
        states.append("deleted")
    return [",".join(states) or "pending", _age(obj, now)]


def _slice(obj: Object, now: datetime) -> list[Cell]:
    pool = _spec(obj, "pool", {}).get("name", "")
    return [_spec(obj, "nodeName"), _spec(obj, "driver"), pool, _age(obj, now)]


_ADMISSION = "admissionregistration.k8s.io"

#: The cells after the name.
RARE: dict[str, Cells] = {
    "podtemplates": _pod_template,
    "resourcequotas": _quota,
    "certificatesigningrequests.certificates.k8s.io": _signing_request,
    "ipaddresses.networking.k8s.io": _address,
    "servicecidrs.networking.k8s.io": lambda obj, now: [join(_spec(obj, "cidrs", ())), _age(obj, now)],
    "csidrivers.storage.k8s.io": _driver,
    "csinodes.storage.k8s.io": lambda obj, now: [len(_spec(obj, "drivers", ())), _age(obj, now)],
    "volumeattachments.storage.k8s.io": _attachment,
    "volumeattributesclasses.storage.k8s.io": lambda obj, now: [obj.get("driverName", ""), _age(obj, now)],
    f"mutatingwebhookconfigurations.{_ADMISSION}": lambda obj, now: [len(obj.get("webhooks") or ()), _age(obj, now)],
    f"validatingwebhookconfigurations.{_ADMISSION}": lambda obj, now: [
        len(obj.get("webhooks") or ()),
        _age(obj, now),
    ],
    f"mutatingadmissionpolicies.{_ADMISSION}": _policy,
    f"mutatingadmissionpolicybindings.{_ADMISSION}": _policy_binding,
    f"validatingadmissionpolicies.{_ADMISSION}": _policy,
    f"validatingadmissionpolicybindings.{_ADMISSION}": _policy_binding,
    "runtimeclasses.node.k8s.io": lambda obj, now: [obj.get("handler", ""), _age(obj, now)],
    "deviceclasses.resource.k8s.io": lambda obj, now: [_age(obj, now)],
    "resourceclaims.resource.k8s.io": _claim,
    "resourceclaimtemplates.resource.k8s.io": lambda obj, now: [_age(obj, now)],
    "resourceslices.resource.k8s.io": _slice,
    "flowschemas.flowcontrol.apiserver.k8s.io": _flow,
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": _level,
}

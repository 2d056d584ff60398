"""Defaults of horizontal pod autoscalers."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.schema.defaults.values import default

_UP: Object = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
_DOWN: Object = {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}


def autoscaler(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    default(spec, minReplicas=1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    if (behavior := spec.get("behavior")) is not None:
        for key, rules in (("scaleUp", _UP), ("scaleDown", _DOWN)):
            default(behavior, **{key: {}})
            policies = [dict(policy) for policy in rules["policies"]]
            default(behavior[key], **{**rules, "policies": policies})

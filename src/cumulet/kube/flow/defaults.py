"""The levels and flows of a new cluster, with upstream's names and numbers (`pkg/apis/flowcontrol/bootstrap`)."""

from __future__ import annotations

from collections.abc import Sequence

from cumulet.common.kubernetes.objects import Object

_ALL = ("*",)


def _limited(shares: int, queues: int = 0, hand: int = 0, length: int = 50, lend: int = 0) -> Object:
    queuing = {"queues": queues, "handSize": hand, "queueLengthLimit": length}
    response = {"type": "Queue", "queuing": queuing} if queues else {"type": "Reject"}
    limited = {"nominalConcurrencyShares": shares, "lendablePercent": lend, "limitResponse": response}
    return {"type": "Limited", "limited": limited}


#: The levels of a new cluster, with upstream's numbers.
LEVELS: dict[str, Object] = {
    "exempt": {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}},
    "catch-all": _limited(5),
    "system": _limited(30, 64, 6, lend=33),
    "node-high": _limited(40, 64, 6, lend=25),
    "leader-election": _limited(10, 16, 4),
    "workload-high": _limited(40, 128, 6, lend=50),
    "workload-low": _limited(100, 128, 6, lend=90),
    "global-default": _limited(20, 128, 6, lend=50),
}


def _schema(level: str, precedence: int, by: str, *rules: Object) -> Object:
    spec: Object = {
        "priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence,
        "rules": list(rules),
    }
    return {**spec, "distinguisherMethod": {"type": by}} if by else spec


def _group(name: str) -> Object:
    return {"kind": "Group", "group": {"name": name}}


def _user(name: str) -> Object:
    return {"kind": "User", "user": {"name": name}}


def _account(namespace: str, name: str) -> Object:
    return {"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}}


def _on(
    subjects: list[Object],
    groups: Sequence[str] = _ALL,
    resources: Sequence[str] = _ALL,
    *,
    verbs: Sequence[str] = _ALL,
    paths: bool = True,
) -> Object:
    rule = {
        "verbs": list(verbs),
        "apiGroups": list(groups),
        "resources": list(resources),
        "namespaces": ["*"],
        "clusterScope": True,
    }
    on: Object = {"subjects": subjects, "resourceRules": [rule]}
    return {**on, "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]} if paths else on


_EVERYBODY = [_group("system:unauthenticated"), _group("system:authenticated")]
_CONTROL_PLANE = [
    _user("system:kube-controller-manager"),
    _user("system:kube-scheduler"),
    _account("kube-system", "*"),
]
_LEASES = ["coordination.k8s.io"]

#: The flows of a new cluster, as in upstream.
SCHEMAS: dict[str, Object] = {
    "exempt": _schema("exempt", 1, "", _on([_group("system:masters")])),
    "probes": _schema(
        "exempt",
        2,
        "",
        {
            "subjects": _EVERYBODY,
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
        },
    ),
    "system-leader-election": _schema(
        "leader-election",
        100,
        "ByUser",
        _on(_CONTROL_PLANE, _LEASES, ["leases"], verbs=["get", "create", "update"], paths=False),
    ),
    "endpoint-controller": _schema(
        "workload-high",
        150,
        "ByUser",
        _on(
            [_user("system:kube-controller-manager")],
            [""],
            ["endpoints"],
            verbs=["get", "create", "update"],
            paths=False,
        ),
    ),
    "workload-leader-election": _schema(
        "leader-election",
        200,
        "ByUser",
        _on([_account("kube-system", "*")], _LEASES, ["leases"], verbs=["get", "create", "update"], paths=False),
    ),
    "system-node-high": _schema(
        "node-high",
        400,
        "ByUser",
        _on([_group("system:nodes")], [""], ["nodes", "nodes/status"], paths=False),
        _on([_group("system:nodes")], _LEASES, ["leases"], paths=False),
    ),
    "system-nodes": _schema("system", 500, "ByUser", _on([_group("system:nodes")])),
    "kube-controller-manager": _schema(
        "workload-high", 800, "ByNamespace", _on([_user("system:kube-controller-manager")])
    ),
    "kube-scheduler": _schema("workload-high", 800, "ByNamespace", _on([_user("system:kube-scheduler")])),
    "kube-system-service-accounts": _schema("workload-high", 900, "ByNamespace", _on([_account("kube-system", "*")])),
    "service-accounts": _schema("workload-low", 9000, "ByUser", _on([_group("system:serviceaccounts")])),
    "global-default": _schema("global-default", 9900, "ByUser", _on(_EVERYBODY)),
    "catch-all": _schema("catch-all", 10000, "ByUser", _on(_EVERYBODY)),
}

"""Defaults of role bindings."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Object

_GROUP = "rbac.authorization.k8s.io"


def role_binding(obj: Object) -> None:
    reference = obj.setdefault("roleRef", {})
    if not reference.get("apiGroup"):
        reference["apiGroup"] = _GROUP
    for subject in obj.get("subjects") or ():
        if subject.get("kind") in ("User", "Group") and not subject.get("apiGroup"):
            subject["apiGroup"] = _GROUP

"""The library of authorisation: whether someone may do something (`cel/library/authz.go`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Value = dict[str, Any]

#: What is asked for by the path to it: `authorizer.group('apps').resource('deployments').check('get').allowed()`.
_STEPS = ("group", "path", "resource", "subresource", "namespace", "name")


def _with(step: str) -> Callable[[Value, str], Value]:
    return lambda asked, value: {**asked, step: value}


def _account(asked: Value, namespace: str, name: str) -> Value:
    return {"account": [namespace, name]}


#: What needs nobody to ask; selectors are told to authorisers that know them, and RBAC does not.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{step: _with(step) for step in _STEPS},
    "serviceAccount": _account,
    "fieldSelector": lambda asked, text: asked,
    "labelSelector": lambda asked, text: asked,
    "allowed": lambda decision: decision["allowed"],
    "reason": lambda decision: decision["reason"],
    "errored": lambda decision: False,
    "error": lambda decision: "",
    # Where there is nobody to ask, nothing is allowed.
    "check": lambda asked, verb: {"allowed": False, "reason": ""},
}


def variable(group: str, resource: str, subresource: str, namespace: str, name: str) -> Value:
    """`authorizer`, with `requestResource` for what the request is about."""
    about = {"group": group, "resource": resource, "subresource": subresource, "namespace": namespace, "name": name}
    return {"requestResource": about}

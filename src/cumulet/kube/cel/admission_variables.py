"""The variables of expressions in webhooks and policies (`apiserver/pkg/admission/plugin/cel/compile.go`)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.cel import library
from cumulet.kube.cel.environment import Budget, Environment, Program
from cumulet.kube.cel.errors import CelError, CompileError
from cumulet.kube.cel.library.authorizer import Attributes, Authorizer, Check, ResourceCheck
from cumulet.kube.cel.times import Timestamp
from cumulet.kube.cel.types import BOOL, DYN, INT, STRING, TIMESTAMP, Type, list_of, map_of, object_type
from cumulet.kube.cel.values import Lazy, Value

_STRINGS = list_of(STRING)
_KIND = object_type("kubernetes.GroupVersionKind", dict.fromkeys(("group", "version", "kind"), STRING))
_RESOURCE = object_type("kubernetes.GroupVersionResource", dict.fromkeys(("group", "version", "resource"), STRING))
_USER = object_type(
    "kubernetes.UserInfo",
    {"username": STRING, "uid": STRING, "groups": _STRINGS, "extra": map_of(STRING, _STRINGS)},
)
_REQUEST = object_type(
    "kubernetes.AdmissionRequest",
    {
        "kind": _KIND,
        "resource": _RESOURCE,
        "subResource": STRING,
        "requestKind": _KIND,
        "requestResource": _RESOURCE,
        "requestSubResource": STRING,
        "name": STRING,
        "namespace": STRING,
        "operation": STRING,
        "userInfo": _USER,
        "dryRun": BOOL,
        "options": DYN,
    },
)
_METADATA = object_type(
    "kubernetes.NamespaceMetadata",
    {
        **dict.fromkeys(("name", "generateName", "namespace", "UID", "resourceVersion"), STRING),
        **dict.fromkeys(("labels", "annotations"), map_of(STRING, STRING)),
        **dict.fromkeys(("creationTimestamp", "deletionTimestamp"), TIMESTAMP),
        **dict.fromkeys(("deletionGracePeriodSeconds", "generation"), INT),
        "finalizers": _STRINGS,
    },
)
_CONDITION = object_type(
    "kubernetes.NamespaceCondition",
    {**dict.fromkeys(("status", "type", "message", "reason"), STRING), "lastTransitionTime": TIMESTAMP},
)
_NAMESPACE = object_type(
    "kubernetes.Namespace",
    {
        "metadata": _METADATA,
        "spec": object_type("kubernetes.NamespaceSpec", {"finalizers": _STRINGS}),
        "status": object_type("kubernetes.NamespaceStatus", {"conditions": list_of(_CONDITION), "phase": STRING}),
    },
)
_BASE: dict[str, Type] = {"object": DYN, "oldObject": DYN, "request": _REQUEST, "namespaceObject": _NAMESPACE}
_AUTHORIZER: dict[str, Type] = {
    "authorizer": object_type(Authorizer.kind),
    "authorizer.requestResource": object_type(ResourceCheck.kind),
}
_PATCHES: dict[str, Type] = {
    "Object": Type("type", (DYN,)),
    "JSONPatch": Type(
        "type", (object_type("JSONPatch", {"op": STRING, "path": STRING, "from": STRING, "value": DYN}),)
    ),
}

P = ParamSpec("P")


def conditions(*, params: bool = False) -> Environment:
    """Return the environment of match conditions."""
    return _environment(params, True, False, None)


class Policy:
    """The expressions of one policy. A variable can use the variables before it; all other expressions can use every variable."""

    def __init__(self, *, params: bool, mutating: bool = False) -> None:
        self._params = params
        self._mutating = mutating
        self._known: dict[str, Type] = {}

    def declare(self, name: str, expression: str) -> Program:
        """Compile a variable, which later expressions can use. Raises `CompileError`."""
        try:
            program = self.compile(expression)
        except CompileError:
            self._known[name] = DYN
            raise
        self._known[name] = program.result
        return program

    def compile(self, expression: str, result: Type | None = None, *, authorizer: bool = True) -> Program:
        """Compile an expression. Raises `CompileError`."""
        known = tuple(self._known.items())
        return _environment(self._params, authorizer, self._mutating, known).compile(expression, result)

    def mutation(self, expression: str, *, merging: bool) -> Program:
        """Compile an expression that makes an object to merge, or a list of patches. Raises `CompileError`."""
        program = self.compile(expression)
        wanted = object_type("Object") if merging else list_of(object_type("JSONPatch"))
        if program.result not in (wanted, DYN) and not (not merging and program.result == list_of(DYN)):
            raise CompileError(f"must evaluate to {wanted} but got {program.result}")
        return program


@functools.lru_cache(maxsize=256)
def _environment(
    params: bool,
    authorizer: bool,
    mutating: bool,
    variables: tuple[tuple[str, Type], ...] | None,
) -> Environment:
    known = dict(_BASE)
    if params:
        known["params"] = DYN
    if authorizer:
        known |= _AUTHORIZER
    if mutating:
        known |= _PATCHES
    if variables is not None:
        known["variables"] = object_type("kubernetes.variables", dict(variables))
    return Environment(known, library.MUTATING if mutating else library.BASE)


def namespace_value(namespace: Object | None) -> Object | None:
    """Return a namespace as expressions see it: with time stamps as times, and with `UID`."""
    if namespace is None:
        return None
    metadata = namespace.get("metadata") or {}
    shown = {key: _shown(key, value) for key, value in metadata.items() if key in (_METADATA.fields or {})}
    if "uid" in metadata:
        shown["UID"] = metadata["uid"]
    status = dict(namespace.get("status") or {})
    if status.get("conditions"):
        status["conditions"] = [
            {key: _shown(key, value) for key, value in condition.items()} for condition in status["conditions"]
        ]
    return {"metadata": shown, "spec": namespace.get("spec") or {}, "status": status}


def _shown(key: str, value: Value) -> Value:
    return Timestamp.parse(value) if key in _TIMES and isinstance(value, str) else value


_TIMES = ("creationTimestamp", "deletionTimestamp", "lastTransitionTime")


def variables(request: Object, namespace: Object | None, check: Check) -> dict[str, Value]:
    """Return the variables that every expression can use. `check` answers authorization checks."""
    resource = request.get("requestResource") or {}
    about: Attributes = {
        "group": resource.get("group", ""),
        "resource": resource.get("resource", ""),
        "subresource": request.get("requestSubResource", ""),
        "namespace": request.get("namespace", ""),
        "name": request.get("name", ""),
    }
    return {
        "object": request.get("object"),
        "oldObject": request.get("oldObject"),
        "request": request,
        "namespaceObject": namespace_value(namespace),
        "authorizer": Authorizer(check),
        "authorizer.requestResource": ResourceCheck(check, about),
    }


def lazy(
    declared: Sequence[tuple[str, Program | CompileError]], known: dict[str, Value], budget: Budget
) -> dict[str, Value]:
    """Return the values with `variables`, each evaluated, and charged, on its first use."""
    found = dict(known)

    def finding(program: Program | CompileError) -> Callable[[], Value]:
        return lambda: evaluated(program, found, budget)

    found["variables"] = Lazy({name: finding(program) for name, program in declared})
    return found


def read(compile_: Callable[P, Program], *args: P.args, **how: P.kwargs) -> Program | CompileError:
    """Compile, and return the error on failure: expressions that another version stored can be invalid here."""
    try:
        return compile_(*args, **how)
    except CompileError as error:
        return error


def evaluated(program: Program | CompileError, variables: Mapping[str, Value], budget: Budget) -> Value:
    """Return the value of a program. Raises `CelError`."""
    if isinstance(program, CompileError):
        raise CelError(f"compilation error: {program}")
    return program.evaluate(variables, budget)

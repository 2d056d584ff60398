"""The authorization library (`cel/library/authz.go`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from cumulet.kube.cel.functions import Library
from cumulet.kube.cel.opaque import Opaque
from cumulet.kube.cel.sizes import LIST, STRUCT, Argument, Estimate, scan_cost

LIBRARY = Library()
_add = LIBRARY.add
#: The cost of a check. An expression can afford two.
_CHECK = 350_000

#: The attributes of a check by name. `account` is a namespace and a name.
Attributes = dict[str, str | list[str]]
#: Whether access is allowed: takes the attributes of a check, and the verb.
Check = Callable[[Attributes, str], bool]


@dataclass(frozen=True, slots=True)
class Authorizer(Opaque):
    """The variable `authorizer`."""

    kind: ClassVar[str] = "kubernetes.authorization.Authorizer"
    check: Check
    account: tuple[str, str] | None = None

    def attributes(self, **parts: str) -> Attributes:
        """Return check attributes, with the service account if one is set."""
        return {"account": list(self.account), **parts} if self.account else {**parts}


@dataclass(frozen=True, slots=True)
class PathCheck(Opaque):
    """A check of a URL path."""

    kind: ClassVar[str] = "kubernetes.authorization.PathCheck"
    check: Check
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class GroupCheck(Opaque):
    """A check of an API group."""

    kind: ClassVar[str] = "kubernetes.authorization.GroupCheck"
    check: Check
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class ResourceCheck(Opaque):
    """A check of a resource."""

    kind: ClassVar[str] = "kubernetes.authorization.ResourceCheck"
    check: Check
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Decision(Opaque):
    """The result of a check."""

    kind: ClassVar[str] = "kubernetes.authorization.Decision"
    allowed: bool


def _with(part: str) -> Callable[[ResourceCheck, str], ResourceCheck]:
    return lambda question, value: replace(question, attributes={**question.attributes, part: value})


def _selector_cost(check: ResourceCheck, selector: str) -> int:
    length = len(selector)
    return LIST + scan_cost()(selector) + (length + 1) // 2 * (LIST + STRUCT)


def _selected(target: Argument | None, args: Sequence[Argument]) -> Estimate:
    most = args[0].size.most
    return min(LIST + most // 10 + 1 + (most + 1) // 2 * (LIST + STRUCT), 2**64 - 1), None


_A, _P, _G, _R, _D = (
    f"kubernetes.authorization.{name}"
    for name in ("Authorizer", "PathCheck", "GroupCheck", "ResourceCheck", "Decision")
)
_add(f"({_A}).path(string) {_P}", lambda one, path: PathCheck(one.check, one.attributes(path=path)))
_add(f"({_A}).group(string) {_G}", lambda one, group: GroupCheck(one.check, one.attributes(group=group)))
_add(
    f"({_A}).serviceAccount(string, string) {_A}",
    lambda one, namespace, name: replace(one, account=(namespace, name)),
)
_add(
    f"({_G}).resource(string) {_R}", lambda one, name: ResourceCheck(one.check, {**one.attributes, "resource": name})
)
for _part in ("subresource", "namespace", "name"):
    _add(f"({_R}).{_part}(string) {_R}", _with(_part))
for _part in ("fieldSelector", "labelSelector"):
    # Upstream passes selectors to authorizers that support them. RBAC does not.
    _add(f"({_R}).{_part}(string) {_R}", lambda one, text: one, _selector_cost, _selected)
for _kind in (_P, _R):
    _add(
        f"({_kind}).check(string) {_D}",
        lambda one, verb: Decision(one.check(one.attributes, verb)),
        _CHECK,
        _CHECK,
        waits=True,
    )
_add(f"({_D}).allowed() bool", lambda one: one.allowed)
_add(f"({_D}).reason() string", lambda one: "")
_add(f"({_D}).errored() bool", lambda one: False)
_add(f"({_D}).error() string", lambda one: "")

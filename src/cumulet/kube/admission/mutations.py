"""Plug-in MutatingAdmissionPolicy: expressions change an object before it is stored.

An `ApplyConfiguration` is merged as in server-side apply, but no manager owns its fields. It must not name an atomic
list or map. A `JSONPatch` is a list of operations; where a `test` among them fails, none is applied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.admission.binding import BoundPolicies, Matched, applies
from cumulet.kube.admission.programs import of_policy
from cumulet.kube.admission.webhooks import AdmissionRequest
from cumulet.kube.admission.webhooks.review import from_version
from cumulet.kube.apimachinery.status import ApiError
from cumulet.kube.catalog import kinds
from cumulet.kube.catalog.builtin_conversion import from_stored
from cumulet.kube.catalog.custom_conversion import Conversions
from cumulet.kube.catalog.resources import Row
from cumulet.kube.cel import PER_REQUEST, Budget, CelError
from cumulet.kube.cel.patience import within
from cumulet.kube.cel.values import as_json
from cumulet.kube.fields import Shape, shape_of
from cumulet.kube.fields.merge import merge
from cumulet.kube.fields.shape import ANY
from cumulet.kube.patch import json_patch
from cumulet.kube.patch.json_patch import FailedTestError, JsonPatchError
from cumulet.kube.schema import definition
from cumulet.kube.store import Store

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import StatusDetails

Complete = Callable[[Object], None]


class Mutations(BoundPolicies):
    """The policies that change objects."""

    def __init__(self, store: Store, conversions: Conversions) -> None:
        names = "mutatingadmissionpolicies", "mutatingadmissionpolicybindings"
        super().__init__(store, conversions, *names, title="policy")

    async def change(self, request: AdmissionRequest, complete: Complete, *, again: bool = False) -> Object | None:
        """Return the object as the policies change it; with `again`, only as those with reinvocation do.

        `complete` runs after each change. Raises `ApiError`.
        """
        last = -1
        for index, bound in enumerate(self.bound):
            if again and bound.policy["spec"].get("reinvocationPolicy") != "IfNeeded":
                continue
            changed = await self._one(index, request, complete)
            if changed != request.obj:
                request, last = request._replace(obj=changed), index
        if again:
            return request.obj
        # Reinvoke the policies whose object later policies changed.
        for index, bound in enumerate(self.bound[: max(last, 0)]):
            if bound.policy["spec"].get("reinvocationPolicy") == "IfNeeded":
                request = request._replace(obj=await self._one(index, request, complete))
        return request.obj

    async def _one(self, index: int, request: AdmissionRequest, complete: Complete) -> Object | None:
        bound = self.bound[index]
        matched = await self.match(bound, request)
        if matched is None or request.obj is None:
            return request.obj
        start = matched.request.obj
        assert start is not None
        obj = start = from_stored(matched.row, start) if request.kind is None else start
        for variables in self.variables(matched):

            def mutated(budget: Budget, before: Object = obj, variables: Object = variables) -> Object:
                return _mutated(matched, before, variables, budget)

            try:
                obj = await within(PER_REQUEST, mutated)
            except CelError as error:
                if bound.fails:
                    raise _refusal(matched, str(error)) from None
        if obj == start:
            return request.obj
        return await from_version(self._conversions, request, matched.row, obj, complete)


def _mutated(matched: Matched, obj: Object, variables: Object, budget: Budget) -> Object:
    """Return the object with all mutations of a policy, one after the other. Raises `CelError`."""
    programs, row = of_policy(matched.bound.policy["spec"]), matched.row
    kind, api_version = variables["object"]["kind"], variables["object"]["apiVersion"]
    if not applies(programs, variables, budget):
        return obj
    shape = _shape(matched.request, row)
    for expression, merges in programs.mutations:
        changed = {**variables, "object": {**obj, "kind": kind, "apiVersion": api_version}}
        patch = as_json(expression.value(programs.known(changed, budget), budget))
        obj = _merged(obj, patch, shape) if merges else _patched(obj, patch)
        for key in ("kind", "apiVersion"):
            obj.pop(key, None)
        if matched.request.kind is None and not isinstance(obj.get("metadata"), dict):
            raise CelError("the mutated object has no metadata")
    return obj


def _refusal(matched: Matched, message: str) -> ApiError:
    text = f"policy {matched.bound.names} denied request: {message}"
    details: StatusDetails = {
        "name": matched.request.name,
        "kind": matched.row.plural,
        "causes": [{"message": text}],
    }
    if matched.row.group:
        details["group"] = matched.row.group
    return ApiError(403, "Invalid", text, details)


def _shape(request: AdmissionRequest, row: Row) -> Shape:
    if request.kind is None:
        return kinds.shape(row)
    published = definition(*request.kind)
    return shape_of(published) if published is not None else ANY


def _merged(obj: Object, patch: object, shape: Shape) -> Object:
    if not isinstance(patch, dict):
        raise CelError("type mismatch: ApplyConfiguration expression should evaluate to Object")
    if atomic := list(_atomics(patch, shape, "")):
        raise CelError(
            f"error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: "
            f"{', '.join(atomic)}"
        )
    merged: Object = merge(obj, patch, shape)
    return merged


def _atomics(value: object, shape: Shape, path: str) -> list[str]:
    """Return the paths of lists and maps that would be replaced as a whole."""
    if isinstance(value, list):
        if not shape.keys and not shape.is_set:
            return [path]
        items = enumerate(value)
        return [
            atomic for index, item in items for atomic in _atomics(item, shape.element or ANY, f"{path}[{index}]")
        ]
    if not isinstance(value, dict):
        return []
    if shape.atomic:
        return [path]
    return [atomic for key, item in value.items() for atomic in _atomics(item, shape.field(key), f"{path}.{key}")]


def _patched(obj: Object, patch: object) -> Object:
    if not isinstance(patch, list) or not all(isinstance(item, dict) for item in patch):
        raise CelError("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch")
    try:
        patched = json_patch(obj, patch)
    except FailedTestError:
        return obj
    except JsonPatchError as error:
        raise CelError(f"JSON Patch: {error}") from None
    if not isinstance(patched, dict):
        raise CelError("JSON Patch: the patched value is not an object")
    return patched

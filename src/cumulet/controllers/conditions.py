"""The conditions in the status of objects (API conventions, "Typical status properties")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Required, TypedDict, TypeVar

if TYPE_CHECKING:
    from typing_extensions import ReadOnly

    class AnyCondition(TypedDict, total=False):
        """The fields that the conditions of all kinds require."""

        type: Required[str]
        status: Required[str]

    C = TypeVar("C", bound=AnyCondition)

    class _Status(TypedDict, Generic[C], total=False):
        conditions: list[C]

    class Conditioned(TypedDict, Generic[C], total=False):
        """An object of any kind that has conditions."""

        status: ReadOnly[_Status[C]]


def condition_of(obj: Conditioned[C], kind: str) -> C | None:
    """A condition by its type."""
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition["type"] == kind:
            return condition
    return None


def status_of(obj: Conditioned[C], kind: str) -> str:
    """The status of a condition: `True`, `False`, `Unknown`, or empty without the condition."""
    condition = condition_of(obj, kind)
    return condition["status"] if condition is not None else ""

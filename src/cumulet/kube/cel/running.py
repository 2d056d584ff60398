"""One evaluation of an expression, and what it may cost yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cumulet.kube.cel.errors import CostLimitError


class Run:
    """One evaluation: its variables, and what it may cost yet; it stops where less than `floor` is left."""

    __slots__ = ("floor", "left", "locals", "variables", "waited")

    def __init__(self, variables: Mapping[str, Any], most: int, quick: int | None, count: int) -> None:
        self.variables = variables
        self.left = most
        self.floor = 0 if quick is None else max(most - quick, 0)
        #: What was charged for asking others, which takes no such time.
        self.waited = 0
        self.locals: list[Any] = [None] * count

    def charge(self, cost: int) -> None:
        """Raises `CostLimitError` where that is more than is left."""
        self.left -= cost
        if self.left < self.floor:
            raise CostLimitError

    def charge_waiting(self, cost: int) -> None:
        """Charge for asking others. Raises `CostLimitError`."""
        self.waited += cost
        self.floor = max(self.floor - cost, 0)
        self.charge(cost)


Step = Callable[[Run], Any]

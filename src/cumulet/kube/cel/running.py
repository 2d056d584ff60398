"""The state of one evaluation of an expression."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cumulet.kube.cel.errors import CelError, CostLimitError
from cumulet.kube.cel.values import Value


class Run:
    """One evaluation: its variables and its remaining cost `left`. It stops below `floor`."""

    __slots__ = ("floor", "left", "locals", "variables", "waited")

    def __init__(self, variables: Mapping[str, Value], most: int, quick: int | None, count: int) -> None:
        self.variables = variables
        self.left = most
        self.floor = 0 if quick is None else max(most - quick, 0)
        #: The cost that was charged for waiting on other components, which takes no time on the event loop.
        self.waited = 0
        #: The values of bound names. An error stands for the accumulator of a fold that can still recover.
        self.locals: list[Value | CelError] = [None] * count

    def charge(self, cost: int) -> None:
        """Charge a cost. Raises `CostLimitError` where it is more than the remaining cost."""
        self.left -= cost
        if self.left < self.floor:
            raise CostLimitError

    def charge_waiting(self, cost: int) -> None:
        """Charge for waiting on another component. Raises `CostLimitError`."""
        self.waited += cost
        self.floor = max(self.floor - cost, 0)
        self.charge(cost)


Step = Callable[[Run], Value]

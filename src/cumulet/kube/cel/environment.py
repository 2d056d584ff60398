"""Environments of expressions, programs compiled in them, and the budget that programs share."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from cumulet.kube.cel import checker, cost_estimates, library, types
from cumulet.kube.cel.checker import Checked
from cumulet.kube.cel.errors import CompileError, CostLimitError, OutOfBudgetError
from cumulet.kube.cel.functions import Library
from cumulet.kube.cel.interpreter import Compiled
from cumulet.kube.cel.parser import parse
from cumulet.kube.cel.syntax import Source
from cumulet.kube.cel.types import Type
from cumulet.kube.cel.values import Value

#: The cost limits of one evaluation, of all for an object or a binding, and of all match conditions of a webhook or
#: policy (`apiserver/pkg/apis/cel/config.go`).
#: (`apiserver/pkg/apis/cel/config.go`).
PER_CALL, PER_REQUEST, PER_CONDITIONS = 1_000_000, 10_000_000, 2_500_000


#: Compiling an expression takes about as long as an evaluation of this cost.
_READING = 1000


class LengthyError(Exception):
    """The evaluation takes too long for the event loop. Run it again in a thread, without that limit."""


class Budget:
    """The cost limit that the evaluations for one request share.

    `quick` limits the cost on the event loop. `LengthyError` is raised beyond it.
    """

    def __init__(self, left: int = PER_REQUEST, quick: int | None = None) -> None:
        self.left = left
        self.quick = quick

    def charge_reading(self) -> None:
        """Charge for compiling an expression, which takes time but no budget. Raises `LengthyError`."""
        if self.quick is not None:
            self.quick -= _READING
            if self.quick < 0:
                raise LengthyError


class Program:
    """A compiled expression."""

    def __init__(self, checked: Checked, variables: Mapping[str, Type], functions: Library) -> None:
        self._checked = checked
        self._functions = functions
        self._variables = variables
        self.result: Type = checked.result
        self.names = frozenset(checked.names.values())

    @functools.cached_property
    def most(self) -> int:
        """The maximum cost of an evaluation, by the bounds of the variables' types."""
        return cost_estimates.estimate(self._checked, self._variables)

    @functools.cached_property
    def _compiled(self) -> Compiled:
        return Compiled(self._checked, self._functions.functions)

    def evaluate(self, variables: Mapping[str, Value], budget: Budget) -> Value:
        """Return the value. Raises `CelError`: `CostLimitError` over the limit of one call, `OutOfBudgetError` over the budget."""
        most = min(PER_CALL, budget.left)
        run = self._compiled.start(variables, most, budget.quick)
        try:
            return self._compiled.finish(run)
        except CostLimitError:
            if budget.quick is not None and run.left >= 0:
                raise LengthyError from None
            if most < PER_CALL:
                raise OutOfBudgetError from None
            raise
        finally:
            spent = most - run.left
            budget.left -= spent
            if budget.quick is not None:
                budget.quick -= max(spent - run.waited, 0)


class Environment:
    """Variables with their types, and functions."""

    def __init__(self, variables: Mapping[str, Type], functions: Library = library.BASE) -> None:
        self.variables = variables
        self._functions = functions

    def compile(self, text: str, result: Type | None = None) -> Program:
        """Compile an expression. Raises `CompileError`."""
        try:
            source = Source(text)
            checked = checker.check(source, parse(source), self.variables, self._functions)
        except CompileError as error:
            raise CompileError(f"compilation failed: {error}") from None
        except RecursionError:
            raise CompileError("compilation failed: expression recursion limit exceeded") from None
        if result is not None and checked.result not in (result, types.DYN):
            raise CompileError(f"must evaluate to {result} but got {checked.result}")
        return Program(checked, self.variables, self._functions)

"""The evaluation of macros over lists and maps. Each element is charged before it is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cumulet.kube.cel.errors import CelError, CostLimitError
from cumulet.kube.cel.running import Run, Step
from cumulet.kube.cel.sizes import LIST, MAP
from cumulet.kube.cel.values import items_of, no_overload

#: The fixed cost of an element in a fold: the condition and the step each read the accumulator.
_EACH = 2


def _elements(value: Any, *, pairs: bool) -> Any:
    if not pairs:
        return items_of(value)
    if isinstance(value, dict):
        return value.items()
    return enumerate(items_of(value))


def folding(
    over: Step, start: Step, condition: Step, step: Step, slots: tuple[int, int, int], stop: bool | None
) -> Step:
    """Compute an accumulator over the elements, until it is `stop`. An error is kept, as a later element can override it."""
    result, first, second = slots
    pairs = second >= 0

    def fold(run: Run) -> Any:
        names = run.locals
        elements = _elements(over(run), pairs=pairs)
        so_far: Any = start(run)
        for element in elements:
            run.charge(_EACH)
            if pairs:
                names[first], names[second] = element
            else:
                names[first] = element
            names[result] = so_far
            try:
                so_far = step(run)
            except CostLimitError:
                raise
            except CelError as error:
                if stop is None:
                    raise
                so_far = error
            if so_far is stop:
                break
        names[result] = so_far
        return None

    return fold


def finished(fold: Step, slot: int, result: Step) -> Step:
    """Return the result of a fold, computed from its final accumulator."""

    def step(run: Run) -> Any:
        fold(run)
        return result(run)

    return step


def _passes(test: Step | None, run: Run) -> bool:
    if test is None:
        return True
    found = test(run)
    if not isinstance(found, bool):
        raise no_overload()
    return found


def collected(over: Step, first: int, second: int, test: Step | None, item: Step) -> Step:
    """Return a list of the results for the elements that pass a test."""
    pairs = second >= 0

    def step(run: Run) -> Any:
        names = run.locals
        found: list[Any] = []
        run.left -= LIST
        for element in _elements(over(run), pairs=pairs):
            if pairs:
                names[first], names[second] = element
            else:
                names[first] = element
            if _passes(test, run):
                run.charge(_EACH + LIST)
                found.append(item(run))
            else:
                run.charge(_EACH)
        return found

    return step


def mapped(over: Step, first: int, second: int, test: Step | None, added: Sequence[Step]) -> Step:
    """Return a map of the entries for the elements that pass a test."""

    def step(run: Run) -> Any:
        names = run.locals
        found: dict[Any, Any] = {}
        run.left -= MAP
        for element in _elements(over(run), pairs=True):
            names[first], names[second] = element
            run.charge(_EACH)
            if not _passes(test, run):
                continue
            made = [item(run) for item in added]
            entries = made[0] if len(made) == 1 else {made[0]: made[1]}
            if not isinstance(entries, dict):
                raise no_overload()
            run.charge(len(entries))
            for key, value in entries.items():
                if key in found:
                    raise CelError(f"insert failed: key '{key}' already exists")
                found[key] = value
        return found

    return step

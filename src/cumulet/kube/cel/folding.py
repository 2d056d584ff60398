"""The evaluation of macros over lists and maps. Each element is charged before it is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from cumulet.kube.cel.errors import CelError, CostLimitError
from cumulet.kube.cel.running import Run, Step
from cumulet.kube.cel.sizes import LIST, MAP
from cumulet.kube.cel.values import Key, Value, items_of, no_overload

#: The fixed cost of an element in a fold: the condition and the step each read the accumulator.
_EACH = 2


def _each(run: Run, value: Value, first: int, second: int) -> Iterator[None]:
    """Bind the variables of a fold to each element in turn. `second` is -1 for a fold with one variable."""
    names = run.locals
    if second < 0:
        for names[first] in items_of(value):
            yield
    elif isinstance(value, dict):
        for names[first], names[second] in value.items():
            yield
    else:
        for names[first], names[second] in enumerate(items_of(value)):
            yield


def folding(
    over: Step, start: Step, step: Step, slots: tuple[int, int, int], stop: bool | None
) -> Callable[[Run], None]:
    """Compute an accumulator over the elements, until it is `stop`. An error is kept, as a later element can override it."""
    result, first, second = slots

    def fold(run: Run) -> None:
        names = run.locals
        elements = over(run)
        so_far: Value | CelError = start(run)
        for _ in _each(run, elements, first, second):
            run.charge(_EACH)
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

    return fold


def finished(fold: Callable[[Run], None], result: Step) -> Step:
    """Return the result of a fold, computed from its final accumulator."""

    def step(run: Run) -> Value:
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

    def step(run: Run) -> Value:
        found: list[Value] = []
        run.left -= LIST
        for _ in _each(run, over(run), first, second):
            if _passes(test, run):
                run.charge(_EACH + LIST)
                found.append(item(run))
            else:
                run.charge(_EACH)
        return found

    return step


def mapped(over: Step, first: int, second: int, test: Step | None, added: Sequence[Step]) -> Step:
    """Return a map of the entries for the elements that pass a test."""

    def step(run: Run) -> Value:
        found: dict[Key, Value] = {}
        run.left -= MAP
        for _ in _each(run, over(run), first, second):
            run.charge(_EACH)
            if not _passes(test, run):
                continue
            made = [item(run) for item in added]
            entries: Value = made[0] if len(made) == 1 else {made[0]: made[1]}
            if not isinstance(entries, dict):
                raise no_overload()
            run.charge(len(entries))
            for key, value in entries.items():
                if key in found:
                    raise CelError(f"insert failed: key '{key}' already exists")
                found[key] = value
        return found

    return step

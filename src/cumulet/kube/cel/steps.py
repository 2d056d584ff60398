"""The steps of an evaluation: functions of a `Run` that compute the value of one node (cel-go's `interpreter`).

Each step charges its cost before it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cumulet.kube.cel.errors import CelError, CostLimitError
from cumulet.kube.cel.functions import Overload
from cumulet.kube.cel.running import Run, Step
from cumulet.kube.cel.sizes import LIST
from cumulet.kube.cel.types import Type
from cumulet.kube.cel.values import NONE, Key, Lazy, Optional, TypeValue, Value, kind_of, no_overload


def constant(value: Value) -> Step:
    """Return a value that is known before the evaluation."""

    return lambda run: value


def constant_list(value: list[Value], cost: int) -> Step:
    """Return a list of literals."""

    # Functions never change their arguments, so the list can be shared.
    def step(run: Run) -> Value:
        run.left -= cost
        return value

    return step


def local(slot: int) -> Step:
    """Return the value of a name that a macro binds."""

    def step(run: Run) -> Value:
        run.left -= 1
        found = run.locals[slot]
        if isinstance(found, CelError):
            raise found
        return found

    return step


def variable(name: str) -> Step:
    """Return the value of a variable."""

    def step(run: Run) -> Value:
        run.left -= 1
        try:
            return run.variables[name]
        except KeyError:
            raise CelError(f"no such attribute(s): {name}") from None

    return step


def type_or_variable(name: str, kind: Type) -> Step:
    """Return the value of a variable, or the type of that name."""

    value = TypeValue(name)

    def step(run: Run) -> Value:
        run.left -= 1
        return run.variables.get(name, value)

    return step


def _get(value: Value, field: str) -> Value:
    """Return a field. Raises `KeyError` where it does not exist, `CelError` where the value has no fields."""
    if isinstance(value, dict):
        return value[field]
    if isinstance(value, Lazy):
        return value.get(field)
    raise no_overload()


def field(operand: Step, field: str) -> Step:
    """Return a field of an object or of an optional object."""

    def step(run: Run) -> Value:
        value = operand(run)
        run.left -= 1
        try:
            if type(value) is dict:
                return value[field]
            if isinstance(value, Optional):
                return _within(value, lambda found: _get(found, field))
            return _get(value, field)
        except KeyError:
            raise CelError(f"no such key: {field}") from None

    return step


def _within(value: Optional, get: Callable[[Value], Value]) -> Optional:
    """Return a part of an optional value, or none where the part is missing."""
    if not value.there:
        return NONE
    try:
        return Optional(True, get(value.value))
    except KeyError:
        return NONE


def optional_field(operand: Step, field: str) -> Step:
    """Return a field as an optional value."""

    def step(run: Run) -> Value:
        value = operand(run)
        run.left -= 1
        return _within(
            value if isinstance(value, Optional) else Optional(True, value), lambda found: _get(found, field)
        )

    return step


def has(operand: Step, field: str) -> Step:
    """Return whether a field is set."""

    def step(run: Run) -> Value:
        value = operand(run)
        if isinstance(value, Optional):
            if not value.there:
                return False
            value = value.value
        if isinstance(value, dict):
            return field in value
        if isinstance(value, Lazy):
            return field in value.names
        raise no_overload()

    return step


def logic(args: Sequence[Step], *, stop: bool) -> Step:
    """Evaluate `&&` or `||`: an operand's error is ignored where another operand decides."""

    def step(run: Run) -> Value:
        failed: CelError | None = None
        for arg in args:
            try:
                value = arg(run)
            except CostLimitError:
                raise
            except CelError as error:
                failed = failed or error
                continue
            if value is stop:
                return stop
            if not isinstance(value, bool):
                failed = failed or no_overload()
        if failed is not None:
            raise failed
        return not stop

    return step


def conditional(test: Step, one: Step, other: Step) -> Step:
    """Evaluate `?:`."""

    def step(run: Run) -> Value:
        value = test(run)
        if value is True:
            return one(run)
        if value is False:
            return other(run)
        raise no_overload()

    return step


def either(one: Step, other: Step, *, whole: bool) -> Step:
    """Evaluate `or`, or `orValue` where `whole` is false."""

    def step(run: Run) -> Value:
        value = one(run)
        run.left -= 1
        if not isinstance(value, Optional):
            raise no_overload()
        if value.there:
            return value if whole else value.value
        return other(run)

    return step


def dispatcher(overloads: Sequence[Overload]) -> Callable[[tuple[str, ...]], Overload]:
    """Return a function that selects the overload for values of these kinds."""
    known: dict[tuple[str, ...], Overload] = {}

    def dispatch(kinds: tuple[str, ...]) -> Overload:
        found = known.get(kinds)
        if found is None:
            found = next((overload for overload in overloads if overload.takes(kinds)), None)
            if found is None:
                raise no_overload()
            known[kinds] = found
        return found

    return dispatch


Dispatch = Callable[[tuple[str, ...]], Overload]


def call_unary(arg: Step, dispatch: Dispatch) -> Step:
    """Call a function of one argument."""

    def step(run: Run) -> Value:
        value = arg(run)
        overload = dispatch((kind_of(value),))
        run.charge(1 if overload.cost is None else overload.cost(value))
        return overload.call(value)

    return step


def call_binary(one: Step, other: Step, dispatch: Dispatch) -> Step:
    """Call a function of two arguments."""

    def step(run: Run) -> Value:
        first, second = one(run), other(run)
        overload = dispatch((kind_of(first), kind_of(second)))
        cost = 1 if overload.cost is None else overload.cost(first, second)
        (run.charge_waiting if overload.waits else run.charge)(cost)
        return overload.call(first, second)

    return step


def call(args: Sequence[Step], dispatch: Dispatch) -> Step:
    """Call a function of any number of arguments."""

    def step(run: Run) -> Value:
        values = [arg(run) for arg in args]
        overload = dispatch(tuple(map(kind_of, values)))
        run.charge(1 if overload.cost is None else overload.cost(*values))
        return overload.call(*values)

    return step


def index(operand: Step, index: Step, dispatch: Dispatch) -> Step:
    """Evaluate `a[b]`."""

    def step(run: Run) -> Value:
        value, key = operand(run), index(run)
        run.charge(1)
        if isinstance(value, Optional):
            return _within(value, lambda found: dispatch((kind_of(found), kind_of(key))).call(found, key))
        if isinstance(value, Lazy) and isinstance(key, str):
            return _lazy_item(value, key)
        return dispatch((kind_of(value), kind_of(key))).call(value, key)

    return step


def _lazy_item(value: Lazy, key: str) -> Value:
    try:
        return value.get(key)
    except KeyError:
        raise CelError(f"no such key: {key}") from None


def optional_index(operand: Step, index: Step) -> Step:
    """Evaluate `a[?b]`."""

    def step(run: Run) -> Value:
        value, key = operand(run), index(run)
        run.charge(1)
        if isinstance(value, Optional):
            if not value.there:
                return NONE
            value = value.value
        if isinstance(value, list):
            if isinstance(key, int) and not isinstance(key, bool):
                return Optional(True, value[key]) if 0 <= key < len(value) else NONE
        elif isinstance(value, dict) and isinstance(key, str | int | float):
            return Optional(True, value[key]) if key in value else NONE
        raise no_overload()

    return step


def list_of(items: Sequence[Step], optional: frozenset[int]) -> Step:
    """Build a list. `optional` are the indexes of the elements that are added only if they have a value."""

    if not optional:

        def step(run: Run) -> Value:
            run.left -= LIST
            return [item(run) for item in items]

        return step

    def step_with_optional(run: Run) -> Value:
        run.left -= LIST
        found = []
        for index, item in enumerate(items):
            value = item(run)
            if index not in optional:
                found.append(value)
            elif not isinstance(value, Optional):
                raise no_overload()
            elif value.there:
                found.append(value.value)
        return found

    return step_with_optional


def map_of(entries: Sequence[tuple[Step, Step, bool]], cost: int) -> Step:
    """Build a map from its keys and values, each with whether it is optional."""

    def step(run: Run) -> Value:
        run.left -= cost
        found: dict[Key, Value] = {}
        for make_key, make_value, optional in entries:
            key, value = make_key(run), make_value(run)
            if not isinstance(key, str | int):
                raise CelError(f"unsupported key type: {kind_of(key)}")
            if optional:
                if not isinstance(value, Optional):
                    raise no_overload()
                if not value.there:
                    continue
                value = value.value
            if key in found:
                raise CelError(f"Failed with repeated key: {key}")
            found[key] = value
        return found

    return step


def bound(slot: int, value: Step, body: Step) -> Step:
    """Evaluate `body` with a name for a value."""

    def step(run: Run) -> Value:
        run.left -= LIST
        run.locals[slot] = value(run)
        return body(run)

    return step

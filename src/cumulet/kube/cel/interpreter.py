"""The evaluation of expressions, within a budget (cel-go's `interpreter`, `interpreter/runtimecost.go`).

A tree is converted once to nested functions of a `Run`. Each charges its cost before it runs, so that no step does more
work than the budget allows, also inside one macro.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cumulet.kube.cel import folding
from cumulet.kube.cel.checker import Checked
from cumulet.kube.cel.errors import CelError, CostLimitError
from cumulet.kube.cel.functions import Overload
from cumulet.kube.cel.running import Run, Step
from cumulet.kube.cel.sizes import LIST, MAP, STRUCT
from cumulet.kube.cel.syntax import RESULT, Bind, Call, Fold, Ident, ListOf, Literal, MapOf, Node, Select
from cumulet.kube.cel.types import Type
from cumulet.kube.cel.values import NONE, Key, Lazy, Optional, TypeValue, Value, kind_of, no_overload


class Compiled:
    """An expression that can be evaluated."""

    def __init__(self, checked: Checked, functions: Mapping[str, Sequence[Overload]]) -> None:
        compiler = _Compiler(checked, functions)
        self._step = compiler.step(checked.root)
        self._count = compiler.count

    def start(self, variables: Mapping[str, Value], most: int, quick: int | None) -> Run:
        """Start an evaluation with the cost limit `most`, and the limit `quick` for work without a break."""
        return Run(variables, most, quick, self._count)

    def finish(self, run: Run) -> Value:
        """Return the value. Raises `CelError`."""
        try:
            found = self._step(run)
        except RecursionError:
            raise CelError("expression recursion limit exceeded") from None
        run.charge(0)
        return found


class _Compiler:
    def __init__(self, checked: Checked, functions: Mapping[str, Sequence[Overload]]) -> None:
        self._checked = checked
        self._functions = functions
        self._slots: list[dict[str, int]] = []
        self.count = 0

    def step(self, node: Node) -> Step:
        """Return the function that computes the value of a node."""
        match node:
            case Literal():
                return _constant(node.value)
            case Ident():
                return self._ident(node)
            case Select():
                return self._select(node)
            case Call():
                return self._call(node)
            case ListOf():
                return self._list(node)
            case MapOf():
                return self._map(node)
            case Fold():
                return self._fold(node)
            case Bind():
                return self._bind(node)
        raise AssertionError(node)

    def _slot(self) -> int:
        self.count += 1
        return self.count - 1

    def _ident(self, node: Ident) -> Step:
        for scope in reversed(self._slots):
            if node.name in scope:
                return _local(scope[node.name])
        return self._variable(node)

    def _variable(self, node: Node) -> Step:
        name = self._checked.names[node]
        kind = self._checked.types[node]
        if kind.kind == "type" and kind.params and name != "type":
            return _type_or_variable(name, kind.params[0])
        return _global(name) if name != "type" else _constant(TypeValue("type"))

    def _select(self, node: Select) -> Step:
        if node in self._checked.names:
            return self._variable(node)
        operand, field = self.step(node.operand), node.field
        if node.test:
            return _has(operand, field)
        if node.optional:
            return _optional_field(operand, field)
        return _field(operand, field)

    def _call(self, node: Call) -> Step:
        function = node.function
        args = [self.step(arg) for arg in node.args]
        if node.target is not None and node not in self._checked.plain:
            args.insert(0, self.step(node.target))
        match function:
            case "_&&_":
                return _logic(args, stop=False)
            case "_||_":
                return _logic(args, stop=True)
            case "_?_:_":
                return _conditional(*args)
            case "@not_strictly_false":
                return args[0]
            case "_[?_]":
                return _optional_index(args[0], args[1])
            case "or" | "orValue" if self._checked.overloads[node][0].id in ("or", "or_value"):
                return _or(args[0], args[1], whole=function == "or")
        overloads = self._checked.overloads[node]
        if function == "_[_]":
            # For an optional value, this is an index into its content.
            return _index(args[0], args[1], _dispatcher(self._functions["_[_]"]))
        dispatch = _dispatcher(overloads)
        if len(args) == 1:
            return _unary(args[0], dispatch)
        if len(args) == 2:
            return _binary(args[0], args[1], dispatch)
        return _any(args, dispatch)

    def _list(self, node: ListOf) -> Step:
        if all(isinstance(item, Literal) for item in node.items) and not node.optional:
            return _constant_list(
                [item.value for item in node.items if isinstance(item, Literal)], LIST * (not node.items)
            )
        return _list([self.step(item) for item in node.items], node.optional)

    def _map(self, node: MapOf) -> Step:
        entries = [(self.step(entry.key), self.step(entry.value), entry.optional) for entry in node.entries]
        return _map(entries, STRUCT if node.type else MAP)

    def _bind(self, node: Bind) -> Step:
        value = self.step(node.value)
        slot = self._slot()
        self._slots.append({node.name: slot})
        body = self.step(node.body)
        self._slots.pop()
        return _bound(slot, value, body)

    def _fold(self, node: Fold) -> Step:
        over = self.step(node.over)
        start = self.step(node.start)
        result, first = self._slot(), self._slot()
        second = self._slot() if node.second else -1
        self._slots.append({RESULT: result})
        self._slots.append({node.variable: first, **({node.second: second} if node.second else {})})
        made: Step
        if node.collects:
            made = self._collecting(node, over, first, second)
        else:
            # The accumulator value that ends a fold early.
            start_value = node.start.value if isinstance(node.start, Literal) else None
            stop = not start_value if isinstance(start_value, bool) else None
            fold = folding.folding(over, start, self.step(node.step), (result, first, second), stop)
        self._slots.pop()
        if not node.collects:
            made = folding.finished(fold, self.step(node.result))
        self._slots.pop()
        return made

    def _collecting(self, node: Fold, over: Step, first: int, second: int) -> Step:
        test: Step | None = None
        step = node.step
        assert isinstance(step, Call)
        if step.function == "_?_:_":
            test, step = self.step(step.args[0]), step.args[1]
        assert isinstance(step, Call)
        added = step.args[1:]
        if isinstance(node.start, ListOf):
            (made,) = added
            assert isinstance(made, ListOf)
            return folding.collected(over, first, second, test, self.step(made.items[0]))
        return folding.mapped(over, first, second, test, [self.step(item) for item in added])


def _constant(value: Value) -> Step:
    return lambda run: value


def _constant_list(value: list[Value], cost: int) -> Step:
    # Functions never change their arguments, so the list can be shared.
    def step(run: Run) -> Value:
        run.left -= cost
        return value

    return step


def _local(slot: int) -> Step:
    def step(run: Run) -> Value:
        run.left -= 1
        found = run.locals[slot]
        if isinstance(found, CelError):
            raise found
        return found

    return step


def _global(name: str) -> Step:
    def step(run: Run) -> Value:
        run.left -= 1
        try:
            return run.variables[name]
        except KeyError:
            raise CelError(f"no such attribute(s): {name}") from None

    return step


def _type_or_variable(name: str, kind: Type) -> Step:
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


def _field(operand: Step, field: str) -> Step:
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


def _optional_field(operand: Step, field: str) -> Step:
    def step(run: Run) -> Value:
        value = operand(run)
        run.left -= 1
        return _within(
            value if isinstance(value, Optional) else Optional(True, value), lambda found: _get(found, field)
        )

    return step


def _has(operand: Step, field: str) -> Step:
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


def _logic(args: Sequence[Step], *, stop: bool) -> Step:
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


def _conditional(test: Step, one: Step, other: Step) -> Step:
    def step(run: Run) -> Value:
        value = test(run)
        if value is True:
            return one(run)
        if value is False:
            return other(run)
        raise no_overload()

    return step


def _or(one: Step, other: Step, *, whole: bool) -> Step:
    def step(run: Run) -> Value:
        value = one(run)
        run.left -= 1
        if not isinstance(value, Optional):
            raise no_overload()
        if value.there:
            return value if whole else value.value
        return other(run)

    return step


def _dispatcher(overloads: Sequence[Overload]) -> Callable[[tuple[str, ...]], Overload]:
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


def _unary(arg: Step, dispatch: Dispatch) -> Step:
    def step(run: Run) -> Value:
        value = arg(run)
        overload = dispatch((kind_of(value),))
        run.charge(1 if overload.cost is None else overload.cost(value))
        return overload.call(value)

    return step


def _binary(one: Step, other: Step, dispatch: Dispatch) -> Step:
    def step(run: Run) -> Value:
        first, second = one(run), other(run)
        overload = dispatch((kind_of(first), kind_of(second)))
        cost = 1 if overload.cost is None else overload.cost(first, second)
        (run.charge_waiting if overload.waits else run.charge)(cost)
        return overload.call(first, second)

    return step


def _any(args: Sequence[Step], dispatch: Dispatch) -> Step:
    def step(run: Run) -> Value:
        values = [arg(run) for arg in args]
        overload = dispatch(tuple(map(kind_of, values)))
        run.charge(1 if overload.cost is None else overload.cost(*values))
        return overload.call(*values)

    return step


def _index(operand: Step, index: Step, dispatch: Dispatch) -> Step:
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


def _optional_index(operand: Step, index: Step) -> Step:
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
        elif isinstance(value, dict):
            return Optional(True, value[key]) if key in value else NONE
        raise no_overload()

    return step


def _list(items: Sequence[Step], optional: frozenset[int]) -> Step:
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


def _map(entries: Sequence[tuple[Step, Step, bool]], cost: int) -> Step:
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


def _bound(slot: int, value: Step, body: Step) -> Step:
    def step(run: Run) -> Value:
        run.left -= LIST
        run.locals[slot] = value(run)
        return body(run)

    return step

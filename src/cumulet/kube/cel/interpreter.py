"""The evaluation of expressions, within a budget (cel-go's `interpreter`, `interpreter/runtimecost.go`).

A tree is converted once to nested functions of a `Run`. Each charges its cost before it runs, so that no step does more
work than the budget allows, also inside one macro.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cumulet.kube.cel import folding, steps
from cumulet.kube.cel.checker import Checked
from cumulet.kube.cel.errors import CelError
from cumulet.kube.cel.functions import Overload
from cumulet.kube.cel.running import Run, Step
from cumulet.kube.cel.sizes import LIST, MAP, STRUCT
from cumulet.kube.cel.syntax import RESULT, Bind, Call, Fold, Ident, ListOf, Literal, MapOf, Node, Select
from cumulet.kube.cel.values import TypeValue, Value


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
                return steps.constant(node.value)
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
                return steps.local(scope[node.name])
        return self._variable(node)

    def _variable(self, node: Node) -> Step:
        name = self._checked.names[node]
        kind = self._checked.types[node]
        if kind.kind == "type" and kind.params and name != "type":
            return steps.type_or_variable(name, kind.params[0])
        return steps.variable(name) if name != "type" else steps.constant(TypeValue("type"))

    def _select(self, node: Select) -> Step:
        if node in self._checked.names:
            return self._variable(node)
        operand, field = self.step(node.operand), node.field
        if node.test:
            return steps.has(operand, field)
        if node.optional:
            return steps.optional_field(operand, field)
        return steps.field(operand, field)

    def _call(self, node: Call) -> Step:
        function = node.function
        args = [self.step(arg) for arg in node.args]
        if node.target is not None and node not in self._checked.plain:
            args.insert(0, self.step(node.target))
        match function:
            case "_&&_":
                return steps.logic(args, stop=False)
            case "_||_":
                return steps.logic(args, stop=True)
            case "_?_:_":
                return steps.conditional(*args)
            case "@not_strictly_false":
                return args[0]
            case "_[?_]":
                return steps.optional_index(args[0], args[1])
            case "or" | "orValue" if self._checked.overloads[node][0].id in ("or", "or_value"):
                return steps.either(args[0], args[1], whole=function == "or")
        overloads = self._checked.overloads[node]
        if function == "_[_]":
            # For an optional value, this is an index into its content.
            return steps.index(args[0], args[1], steps.dispatcher(self._functions["_[_]"]))
        dispatch = steps.dispatcher(overloads)
        if len(args) == 1:
            return steps.call_unary(args[0], dispatch)
        if len(args) == 2:
            return steps.call_binary(args[0], args[1], dispatch)
        return steps.call(args, dispatch)

    def _list(self, node: ListOf) -> Step:
        if all(isinstance(item, Literal) for item in node.items) and not node.optional:
            return steps.constant_list(
                [item.value for item in node.items if isinstance(item, Literal)], LIST * (not node.items)
            )
        return steps.list_of([self.step(item) for item in node.items], node.optional)

    def _map(self, node: MapOf) -> Step:
        entries = [(self.step(entry.key), self.step(entry.value), entry.optional) for entry in node.entries]
        return steps.map_of(entries, STRUCT if node.type else MAP)

    def _bind(self, node: Bind) -> Step:
        value = self.step(node.value)
        slot = self._slot()
        self._slots.append({node.name: slot})
        body = self.step(node.body)
        self._slots.pop()
        return steps.bound(slot, value, body)

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

"""Declarations of functions: their argument and result types, their implementation, and their cost."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cumulet.kube.cel import types
from cumulet.kube.cel.sizes import Estimating
from cumulet.kube.cel.types import Type
from cumulet.kube.cel.values import Value

#: The cost of a call, computed from its arguments before the call.
Cost = Callable[..., int]
_SIGNATURE = re.compile(
    r"(?:\((?P<target>[^)]+)\)\.)?(?P<name>[\w.@?:\[\]!&|<>=+*/%-]+)\((?P<args>[^)]*)\) (?P<result>.+)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Overload:
    """One overload of a function. A method (`is_method`) has its first argument before the name."""

    function: str
    id: str
    is_method: bool
    args: tuple[Type, ...]
    result: Type
    call: Callable[..., Value]
    cost: Cost | None
    estimate: Estimating | None
    #: Whether the cost is for waiting on another component, not for work here.
    waits: bool = False

    def takes(self, kinds: Sequence[str]) -> bool:
        """Whether values of these kinds match, as far as is known without inspecting their elements."""
        return len(kinds) == len(self.args) and all(
            wanted.kind in ("param", "dyn") or kind == (wanted.name or wanted.kind)
            for wanted, kind in zip(self.args, kinds, strict=True)
        )


class Library:
    """Functions by name."""

    def __init__(self, *others: Library) -> None:
        self.functions: dict[str, list[Overload]] = {}
        for other in others:
            for name, overloads in other.functions.items():
                self.functions.setdefault(name, []).extend(overloads)

    def add(
        self,
        signature: str,
        call: Callable[..., Value],
        cost: Cost | int | None = None,
        estimate: Estimating | int | None = None,
        *,
        name: str = "",
        waits: bool = False,
    ) -> None:
        """Declare an overload: `(string).startsWith(string) bool` or `ip(string) net.IP`.

        The default `estimate` is the cost of the language's own function of this `name`, or one.
        """
        match = _SIGNATURE.fullmatch(signature)
        assert match is not None, signature
        target, own = match["target"], match["name"]
        args = tuple(types.parsed(text) for text in [*([target] if target else []), *_split(match["args"])])
        fixed = _fixed_cost(cost) if isinstance(cost, int) else cost
        estimated = _fixed_estimate(estimate) if isinstance(estimate, int) else estimate
        made = Overload(
            own,
            name or signature,
            target is not None,
            args,
            types.parsed(match["result"]),
            call,
            fixed,
            estimated,
            waits,
        )
        self.functions.setdefault(own, []).append(made)


def _split(text: str) -> list[str]:
    """Split arguments at the commas that are outside brackets."""
    found, depth = [""], 0
    for char in text:
        depth += (char == "<") - (char == ">")
        if char == "," and not depth:
            found.append("")
        else:
            found[-1] += char
    return [item.strip() for item in found if item.strip()]


def _fixed_cost(cost: int) -> Cost:
    return lambda *args: cost


def _fixed_estimate(cost: int) -> Estimating:
    return lambda target, args: (cost, None)

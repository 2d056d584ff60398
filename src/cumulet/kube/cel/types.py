"""Types of expressions, and assignability between them (cel-go's `checker/types.go`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Type:
    """A type. `fields` are those of an object, `most` the maximum elements or characters of a value.

    `least_size` is the minimum number of bytes of a value in JSON. Types are equal regardless of their bounds.
    """

    kind: str
    params: tuple[Type, ...] = ()
    name: str = ""
    fields: Mapping[str, Type] | None = field(default=None, compare=False, repr=False)
    most: int = field(default=0, compare=False, repr=False)
    least_size: int = field(default=1, compare=False, repr=False)

    def __str__(self) -> str:
        match self.kind:
            case "object":
                return self.name
            case "null":
                return "null"
            case "timestamp":
                return "google.protobuf.Timestamp"
            case "duration":
                return "google.protobuf.Duration"
            case "optional":
                return f"optional_type({self.params[0]})"
            case "param":
                return self.name
            case "error":
                return "!error!"
        return f"{self.kind}({', '.join(map(str, self.params))})" if self.params else self.kind


BOOL, INT, UINT, DOUBLE, STRING, BYTES = (Type(kind) for kind in ("bool", "int", "uint", "double", "string", "bytes"))
NULL, DYN, ERROR, TIMESTAMP, DURATION = (Type(kind) for kind in ("null", "dyn", "error", "timestamp", "duration"))
TYPE = Type("type", (DYN,))


def list_of(item: Type, most: int = 0) -> Type:
    """Return the type of lists with at most `most` items."""
    return Type("list", (item,), most=most, least_size=2)


def map_of(key: Type, value: Type, most: int = 0) -> Type:
    """Return the type of maps with at most `most` entries."""
    return Type("map", (key, value), most=most, least_size=2)


def optional(value: Type) -> Type:
    """Return the type of optional values."""
    return Type("optional", (value,))


def object_type(name: str, fields: Mapping[str, Type] | None = None, least_size: int = 2) -> Type:
    """Return a type with fields."""
    return Type("object", name=name, fields=fields or {}, least_size=least_size)


#: Types that have a name in expressions.
NAMES: dict[str, Type] = {
    **{kind: Type(kind) for kind in ("bool", "int", "uint", "double", "string", "bytes")},
    "list": list_of(DYN),
    "map": map_of(DYN, DYN),
    "null_type": NULL,
    "type": TYPE,
    "google.protobuf.Timestamp": TIMESTAMP,
    "google.protobuf.Duration": DURATION,
    "optional_type": optional(DYN),
}
#: Kinds that accept null.
_NULLABLE = frozenset(("object", "null", "timestamp", "duration", "optional", "opaque"))


class Bindings:
    """The known values of the type parameters in an expression."""

    def __init__(self) -> None:
        self._bound: dict[Type, Type] = {}
        self._fresh = 0

    def fresh(self) -> Type:
        """Return a new type parameter."""
        self._fresh += 1
        return Type("param", name=f"_var{self._fresh}")

    def instance(self, types: Iterable[Type]) -> list[Type]:
        """Return the types of a declaration, with new parameters for its own."""
        own: dict[str, Type] = {}
        return [self._renamed(item, own) for item in types]

    def _renamed(self, item: Type, own: dict[str, Type]) -> Type:
        if item.kind == "param":
            if item.name not in own:
                own[item.name] = self.fresh()
            return own[item.name]
        if not item.params:
            return item
        return Type(item.kind, tuple(self._renamed(part, own) for part in item.params), item.name)

    def resolve(self, item: Type, *, final: bool = False) -> Type:
        """Replace the parameters in a type by their values. An unknown one becomes dynamic with `final`."""
        if item.kind == "param":
            if (found := self._bound.get(item)) is not None:
                return self.resolve(found, final=final)
            return DYN if final else item
        if not item.params:
            return item
        params = tuple(self.resolve(part, final=final) for part in item.params)
        if params == item.params:
            return item
        return Type(item.kind, params, item.name, item.fields, item.most, item.least_size)

    def assign(self, wanted: Type, found: Type) -> bool:
        """Whether a value of the type `found` can be used as `wanted`. Binds parameters."""
        return self.assign_all([wanted], [found])

    def assign_all(self, wanted: list[Type], found: list[Type]) -> bool:
        """Whether all pairs match. Nothing is bound where one does not."""
        if len(wanted) != len(found):
            return False
        before = dict(self._bound)
        if all(self._fits(one, other) for one, other in zip(wanted, found, strict=True)):
            return True
        self._bound = before
        return False

    def _fits(self, one: Type, other: Type) -> bool:
        if other.kind == "param":
            done, valid = self._bind(one, other)
            if done:
                return valid
        if one.kind == "param":
            return self._bind(other, one)[1]
        if "dyn" in (one.kind, other.kind) or "error" in (one.kind, other.kind):
            return True
        if one.kind == "null" or other.kind == "null":
            return (other if one.kind == "null" else one).kind in _NULLABLE
        if one.kind != other.kind:
            return False
        if one.kind == "type":
            return True
        if one.name != other.name or len(one.params) != len(other.params):
            return False
        return all(self._fits(a, b) for a, b in zip(one.params, other.params, strict=True))

    def _bind(self, value: Type, param: Type) -> tuple[bool, bool]:
        """Return whether the parameter has or got a value, and whether the types match."""
        if value == param:
            return True, True
        bound = self._bound.get(param)
        if bound is not None:
            if not self._fits(value, bound):
                return True, False
            general = most_general(value, bound)
            if not self._refers(general, param):
                self._bound[param] = general
            return True, True
        if self._refers(value, param):
            return False, False
        self._bound[param] = value
        return True, True

    def _refers(self, item: Type, param: Type) -> bool:
        if item == param:
            return True
        if item.kind == "param":
            bound = self._bound.get(item)
            return bound is not None and self._refers(bound, param)
        return any(self._refers(part, param) for part in item.params)


def most_general(one: Type, other: Type) -> Type:
    """Return the more general of two types."""
    return one if _is_general(one, other) else other


def _is_general(one: Type, other: Type) -> bool:
    if one.kind in ("dyn", "error", "param"):
        return True
    if one.kind == "null":
        return False
    if one.kind != other.kind or len(one.params) != len(other.params):
        return other.kind == "null"
    return all(_is_general(a, b) for a, b in zip(one.params, other.params, strict=True))


def is_scalar(item: Type) -> bool:
    """Whether values of a type have a known size (`checker.isScalar`)."""
    if item.kind == "optional":
        return is_scalar(item.params[0])
    return item.kind in ("bool", "double", "duration", "int", "timestamp", "uint")


def parsed(text: str) -> Type:
    """Parse a type in a function declaration: `list<A>`, `map<string, list<string>>`, `kubernetes.Quantity`."""
    found, rest = _parsed(text.strip())
    if rest:
        raise ValueError(f"{text!r} is no type")
    return found


def _parsed(text: str) -> tuple[Type, str]:
    end = next((index for index, char in enumerate(text) if char in "<>,"), len(text))
    name, rest = text[:end].strip(), text[end:]
    params: list[Type] = []
    if rest.startswith("<"):
        while rest[0] in "<,":
            param, rest = _parsed(rest[1:].strip())
            params.append(param)
        rest = rest[1:].strip()
    if params:
        return Type(name, tuple(params)), rest
    if len(name) == 1 and name.isupper():
        return Type("param", name=name), rest
    known: dict[str, Type] = {"dyn": DYN, "timestamp": TIMESTAMP, "duration": DURATION, "null": NULL, "type": TYPE}
    return known.get(name) or NAMES.get(name) or object_type(name), rest

"""The library of semantic versions (`cel/library/semverlib.go`, semver.org 2.0.0)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from cumulet.common.ascii import is_digits
from cumulet.kube.cel.errors import CelError
from cumulet.kube.cel.functions import Library
from cumulet.kube.cel.opaque import Opaque
from cumulet.kube.cel.sizes import scan, scan_cost

LIBRARY = Library()
_add = LIBRARY.add
_NUMBER = r"(0|[1-9][0-9]{0,19})"
_IDENTIFIER = r"[0-9A-Za-z-]+"
_VERSION = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?(?:\+({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?"
)
_LENGTH = 1024
_MOST = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Version(Opaque):
    """A version, with its pre-release part. Build metadata is ignored."""

    kind: ClassVar[str] = "kubernetes.Semver"
    numbers: tuple[int, int, int]
    before: tuple[str, ...] = ()

    def order(self) -> tuple[object, ...]:
        """The sort key: a release comes after its pre-releases."""
        parts = tuple((0, int(part), "") if is_digits(part) else (1, 0, part) for part in self.before)
        return (*self.numbers, not self.before, parts)


def _parsed(text: str, normalize: bool = False) -> Version:
    """Parse a version. Raises `CelError`."""
    found = _normal(text) if normalize else text
    match = _VERSION.fullmatch(found) if len(found) <= _LENGTH and found.isascii() else None
    if match is None:
        raise CelError(
            "No Major.Minor.Patch elements found" if text.count(".") < 2 else f"invalid version {text[:100]!r}"
        )
    before = tuple(match[4].split(".")) if match[4] else ()
    numbers = int(match[1]), int(match[2]), int(match[3])
    if any(is_digits(part) and len(part) > 1 and part.startswith("0") for part in before) or max(numbers) > _MOST:
        raise CelError("Numeric PreRelease version must not contain leading zeroes")
    return Version(numbers, before)


def _normal(text: str) -> str:
    """Normalize a version: no leading `v` or zeros, and all three numbers."""
    text = text.removeprefix("v")
    end = min((index for index in (text.find("-"), text.find("+")) if index >= 0), default=len(text))
    core, rest = text[:end], text[end:]
    parts = [part.lstrip("0") or ("0" if part else "") for part in core.split(".", 2)]
    if len(parts) < 3 and not rest:
        parts += ["0"] * (3 - len(parts))
    return ".".join(parts) + rest


def _is(text: str, normalize: bool = False) -> bool:
    try:
        _parsed(text, normalize)
    except CelError:
        return False
    return True


def _order(one: Version, other: Version) -> int:
    first, second = one.order(), other.order()
    return int(first > second) - int(first < second)


_T = "kubernetes.Semver"
_add(f"semver(string) {_T}", _parsed, scan_cost(), scan())
_add(f"semver(string, bool) {_T}", _parsed, scan_cost(), scan())
_add("isSemver(string) bool", _is, scan_cost(), scan())
_add("isSemver(string, bool) bool", _is, scan_cost(), scan())
for _index, _name in enumerate(("major", "minor", "patch")):
    _add(f"({_T}).{_name}() int", lambda one, index=_index: one.numbers[index])
_add(f"({_T}).isGreaterThan({_T}) bool", lambda one, other: _order(one, other) > 0)
_add(f"({_T}).isLessThan({_T}) bool", lambda one, other: _order(one, other) < 0)
_add(f"({_T}).compareTo({_T}) int", _order)

"""The library of named formats (`cel/library/format.go`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from cumulet.kube.apimachinery import name_formats, string_formats
from cumulet.kube.cel.errors import CelError
from cumulet.kube.cel.functions import Library
from cumulet.kube.cel.library.network import _or_error, _parse_url
from cumulet.kube.cel.opaque import Opaque
from cumulet.kube.cel.sizes import REGEX, TRAVERSAL, Argument, Estimate, clip, scaled
from cumulet.kube.cel.values import NONE, Optional

LIBRARY = Library()
_add = LIBRARY.add
_T = "kubernetes.NamedFormat"
_PATTERN = 128


@dataclass(frozen=True, slots=True)
class Format(Opaque):
    """A text format. `faults` returns the errors of a text, and `pattern` is the length of the format's pattern."""

    kind: ClassVar[str] = _T
    name: str
    faults: Callable[[str], list[str]] = field(compare=False)
    pattern: int = field(compare=False, default=30)


def _prefix(check: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """Allow a trailing hyphen, as in a prefix for generated names."""
    return lambda text: check(f"{text[:-1]}a" if len(text) > 1 and text.endswith("-") else text)


def _named(name: str, why: str) -> Callable[[str], list[str]]:
    return lambda text: [] if string_formats.fits(name, text) else [why]


def _uri(text: str) -> list[str]:
    try:
        _or_error(_parse_url)(text)
    except CelError as error:
        return [str(error).removeprefix("URL parse error during conversion from string: ")]
    return []


_FORMATS = {
    "dns1123Label": Format("DNS1123Label", name_formats.dns_label, 30),
    "dns1123Subdomain": Format("DNS1123Subdomain", name_formats.dns_subdomain, 60),
    "dns1035Label": Format("DNS1035Label", name_formats.dns_1035, 30),
    "qualifiedName": Format("QualifiedName", name_formats.qualified_name, 60),
    "dns1123LabelPrefix": Format("DNS1123LabelPrefix", _prefix(name_formats.dns_label), 30),
    "dns1123SubdomainPrefix": Format("DNS1123SubdomainPrefix", _prefix(name_formats.dns_subdomain), 60),
    "dns1035LabelPrefix": Format("DNS1035LabelPrefix", _prefix(name_formats.dns_1035), 30),
    "labelValue": Format("LabelValue", name_formats.label_value, 40),
    "uri": Format("URI", _uri, 1103),
    "uuid": Format("uuid", _named("uuid", "does not match the UUID format"), 77),
    "byte": Format("byte", _named("byte", "invalid base64"), 84),
    "date": Format("date", _named("date", "invalid date"), 100),
    "datetime": Format("datetime", _named("date-time", "invalid datetime"), 100),
}


def _cost(named: Format, text: str) -> int:
    return math.ceil((1 + len(text)) * TRAVERSAL) * math.ceil(named.pattern * REGEX)


def _estimate(target: Argument | None, args: Sequence[Argument]) -> Estimate:
    return clip(scaled(scaled(args[0].size.most, TRAVERSAL), _PATTERN * REGEX)), None


def _validate(named: Format, text: str) -> Optional:
    faults = named.faults(text)
    return Optional(True, [*faults]) if faults else NONE


def _lookup(name: str) -> Optional:
    return Optional(True, _FORMATS[name]) if name in _FORMATS else NONE


def _constant(named: Format) -> Callable[[], Format]:
    return lambda: named


for _name, _format in _FORMATS.items():
    _add(f"format.{_name}() {_T}", _constant(_format))
_add(f"format.named(string) optional<{_T}>", _lookup)
_add(f"({_T}).validate(string) optional<list<string>>", _validate, _cost, _estimate)

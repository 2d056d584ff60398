"""String formats of schemas (`kube-openapi/pkg/validation/strfmt`, `apiextensions-apiserver`'s `formats.go`).

An unknown format accepts every text, as in upstream.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from datetime import date
from urllib.parse import urlsplit

from cumulet.common.ascii import is_digits
from cumulet.kube.apimachinery import name_formats

#: The characters of the longest text with a format, except URIs and bytes.
_LENGTH = 4096
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,62}[a-zA-Z0-9])?"
_HEX = "[0-9a-fA-F]"


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.ASCII)
    return lambda text: len(text) <= _LENGTH and compiled.fullmatch(text) is not None


def _is_uri(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    plain = not any(char <= " " or char == "\x7f" for char in text)
    return plain and bool(parts.scheme or text.startswith("/"))


def _is_address(version: int) -> Callable[[str], bool]:
    def test(text: str) -> bool:
        try:
            address = ipaddress.ip_address(text if text.isascii() and "%" not in text else "")
        except ValueError:
            return False
        return address.version == version

    return test


def _is_range(text: str) -> bool:
    host, slash, length = text.partition("/")
    try:
        most = ipaddress.ip_address(host if "%" not in host else "").max_prefixlen
    except ValueError:
        return False
    return bool(slash) and is_digits(length) and len(length) <= 3 and int(length) <= most


def _is_bytes(text: str) -> bool:
    try:
        base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _is_date(text: str) -> bool:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(?:[.,][0-9]{1,30})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def _is_moment(text: str) -> bool:
    match = _MOMENT.fullmatch(text)
    return match is not None and _is_date(match[1])


_UNIT = (
    r"(?:ns|nano|us|µs|μs|micro|ms|milli|s|sec|second|m|min|minute|h|hr|hour|d|day|w|wk|week|"
    r"nanos|micros|millis|seconds|secs|minutes|mins|hours|hrs|days|weeks|wks)"
)
_DURATION = re.compile(rf"[+-]?(?:0|(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*{_UNIT}\s*)+)", re.ASCII)


def _is_duration(text: str) -> bool:
    return len(text) <= 256 and _DURATION.fullmatch(text.strip()) is not None


def _is_email(text: str) -> bool:
    local, at, domain = text.rpartition("@")
    if not at or len(text) > 320 or not local or any(char <= " " or char in '()<>,;:\\"[]@' for char in local):
        return False
    return not local.startswith(".") and not local.endswith(".") and ".." not in local and bool(domain)


def _digits(text: str) -> str:
    return re.sub(r"[\s-]", "", text, flags=re.ASCII) if len(text) <= 64 else ""


def _is_isbn10(text: str) -> bool:
    digits = _digits(text)
    if not re.fullmatch(r"[0-9]{9}[0-9Xx]", digits):
        return False
    total = sum((10 - index) * (10 if char in "Xx" else int(char)) for index, char in enumerate(digits))
    return total % 11 == 0


def _is_isbn13(text: str) -> bool:
    digits = _digits(text)
    if not re.fullmatch(r"[0-9]{13}", digits):
        return False
    return sum(int(char) * (3 if index % 2 else 1) for index, char in enumerate(digits)) % 10 == 0


def _is_card(text: str) -> bool:
    digits = _digits(text)
    if not re.fullmatch(r"[0-9]{13,19}", digits):
        return False
    total = 0
    for index, char in enumerate(reversed(digits)):
        number = int(char) * (1 + index % 2)
        total += number - 9 * (number > 9)
    return total % 10 == 0


def _uuid(version: str, variant: str = _HEX) -> Callable[[str], bool]:
    return _matches(rf"{_HEX}{{8}}-?{_HEX}{{4}}-?{version}{_HEX}{{3}}-?{variant}{_HEX}{{3}}-?{_HEX}{{12}}")


_CHECKS: dict[str, Callable[[str], bool]] = {
    "bsonobjectid": _matches(rf"{_HEX}{{24}}"),
    "uri": _is_uri,
    "email": _is_email,
    "hostname": lambda text: len(text) <= 255 and _matches(rf"{_LABEL}(?:\.{_LABEL})*")(text),
    "ipv4": _is_address(4),
    "ipv6": _is_address(6),
    "cidr": _is_range,
    "mac": _matches(
        rf"(?:{_HEX}{{2}}[:-]){{5}}{_HEX}{{2}}|(?:{_HEX}{{2}}[:-]){{7}}{_HEX}{{2}}|(?:{_HEX}{{4}}\.){{2,3}}{_HEX}{{4}}"
    ),
    "uuid": _uuid(_HEX),
    "uuid3": _uuid("3"),
    "uuid4": _uuid("4", "[89abAB]"),
    "uuid5": _uuid("5", "[89abAB]"),
    "isbn": lambda text: _is_isbn10(text) or _is_isbn13(text),
    "isbn10": _is_isbn10,
    "isbn13": _is_isbn13,
    "creditcard": _is_card,
    "ssn": _matches(r"[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}"),
    "hexcolor": _matches(rf"#?(?:{_HEX}{{3}}|{_HEX}{{6}})"),
    "rgbcolor": _matches(
        r"rgb\(\s*(?:[01]?[0-9]{1,2}|2[0-4][0-9]|25[0-5])(?:\s*,\s*(?:[01]?[0-9]{1,2}|2[0-4][0-9]|25[0-5])){2}\s*\)"
    ),
    "byte": _is_bytes,
    "date": _is_date,
    "datetime": _is_moment,
    "duration": _is_duration,
    "k8sshortname": lambda text: not name_formats.dns_label(text),
    "k8slongname": lambda text: not name_formats.dns_subdomain(text),
}


def fits(name: str, text: str) -> bool:
    """Return whether a text has a format. Hyphens in the name of a format are ignored."""
    check = _CHECKS.get(name.replace("-", ""))
    return check is None or check(text)

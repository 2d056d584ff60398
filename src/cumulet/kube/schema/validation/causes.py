"""What can be wrong with a field, in upstream's words (apimachinery, `field.Error`), and the forms of names."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from cumulet.kube.status import Cause

Object = dict[str, Any]
Causes = Iterator[Cause]

LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = rf"{LABEL}(\.{LABEL})*"
QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
LABEL_VALUE = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
KEY = r"[-._a-zA-Z0-9]+"
#: A prefix of 253 bytes, a slash and a name of 63.
_KEY_LENGTH = 317
is_label = re.compile(LABEL).fullmatch
_is_value = re.compile(LABEL_VALUE).fullmatch
_is_subdomain = re.compile(SUBDOMAIN).fullmatch
_is_qualified = re.compile(QUALIFIED).fullmatch

SUBDOMAIN_MESSAGE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end "
    f"with an alphanumeric character (e.g. 'example.com', regex used for validation is '{SUBDOMAIN}')"
)
LABEL_MESSAGE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an "
    f"alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{LABEL}')"
)
SERVICE_NAME = r"[a-z]([-a-z0-9]*[a-z0-9])?"
SERVICE_MESSAGE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end "
    f"with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '{SERVICE_NAME}')"
)
LABEL_VALUE_MESSAGE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with "
    f"an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '{LABEL_VALUE}')"
)
PATH_SEGMENT = re.compile(r"(?!\.{1,2}$)[^/%]+")


ADDRESS_MESSAGE = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"


def is_address(text: str) -> bool:
    """Whether a text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_network(text: str) -> bool:
    """Whether a text is a range of addresses, as CIDR."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return "/" in text


def required(field: str, detail: str = "") -> Cause:
    """A field that must be there."""
    return Cause(field, "FieldValueRequired", f"Required value: {detail}" if detail else "Required value")


def invalid(field: str, value: Any, detail: str) -> Cause:
    """A value that is not good."""
    return Cause(field, "FieldValueInvalid", f"Invalid value: {as_json(value)}: {detail}")


def duplicate(field: str, value: Any) -> Cause:
    """A value that stands twice where it may once."""
    return Cause(field, "FieldValueDuplicate", f"Duplicate value: {as_json(value)}")


def unsupported(field: str, value: Any, supported: tuple[str, ...]) -> Cause:
    """A value that is not one of a few."""
    shown = ", ".join(f'"{item}"' for item in sorted(supported))
    return Cause(field, "FieldValueNotSupported", f"Unsupported value: {as_json(value)}: supported values: {shown}")


def forbidden(field: str, detail: str) -> Cause:
    """A field that may not be there, or not change."""
    return Cause(field, "FieldValueForbidden", f"Forbidden: {detail}")


def as_json(value: Any) -> str:
    """A value as a message shows it."""
    return msgspec.json.encode(value, order="sorted").decode()


def labels(labels: dict[str, str] | None, field: str) -> Causes:
    for key, value in (labels or {}).items():
        yield from qualified(key, field)
        if len(value) > 63:
            yield invalid(field, value, "must be no more than 63 bytes")
        elif not _is_value(value):
            yield invalid(field, value, LABEL_VALUE_MESSAGE)


def qualified(key: str, field: str) -> Causes:
    if len(key) > _KEY_LENGTH or not _is_key(key):
        yield from _wrong_key(key, field)


@functools.lru_cache(1024)
def _is_key(key: str) -> bool:
    return not list(_wrong_key(key, ""))


def _wrong_key(key: str, field: str) -> Causes:
    prefix, slash, name = key.rpartition("/")
    if slash and (not prefix or len(prefix) > 253 or not _is_subdomain(prefix)):
        yield invalid(field, key, f"prefix part {SUBDOMAIN_MESSAGE}")
    elif not name or len(name) > 63 or not _is_qualified(name):
        yield invalid(
            field,
            key,
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
            f"character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{QUALIFIED}')",
        )

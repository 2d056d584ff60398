"""The common parts of all checks: names, control characters, and errors that quote a request safely."""

from __future__ import annotations

import re

from cumulet.common.arm import ArmError

#: Names of groups, containers and volumes: DNS labels, as in ACI.
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
#: Keys and values of labels (Kubernetes, "Syntax and character set").
_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_LABELS, _LONGEST_KEY = 1000, 253 + 1 + 63
#: Control characters, and the line separators of Unicode.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def quoted(text: str) -> str:
    """Return a part of a request for a message: its first 100 characters, escaped to printable ASCII."""
    return text[:100].encode("unicode_escape").decode()


def invalid(target: str, message: str) -> ArmError:
    """Return the error for a property, by its path, that is not valid."""
    return ArmError(400, "InvalidRequestContent", message, target=target)


def check_labels(labels: dict[str, str]) -> None:
    """Raise `ArmError` for a label that is not one of Kubernetes."""
    if len(labels) > _LABELS:
        raise invalid("properties.labels", f"A container group has at most {_LABELS} labels.")
    for key, value in labels.items():
        if len(key) > _LONGEST_KEY or not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            raise invalid(
                "properties.labels", f"The label '{quoted(key)}' with the value '{quoted(value)}' is not valid."
            )

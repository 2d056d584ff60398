"""The limits of execve(2) for the command line and the environment of a process."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Bytes of one string with its final NUL (`MAX_ARG_STRLEN`).
_LONGEST = 128 * 1024
#: Bytes of all strings with their NULs and pointers: half of Linux's limit for a stack of 8 MiB.
_LARGEST = 1024 * 1024
_COUNT = 10_000
_POINTER = 8

_NAME = re.compile(r"[ -<>-~]{1,1024}")


class ArgumentsError(ValueError):
    """A command line or environment is not valid; the message has the reason, without values."""


def check_arguments(strings: Iterable[str]) -> None:
    """Raise `ArgumentsError` if no process can start with these strings."""
    count = size = 0
    for count, string in enumerate(strings, start=1):
        length = len(string.encode()) + 1
        if "\0" in string:
            raise ArgumentsError("a string contains a NUL")
        if length > _LONGEST:
            raise ArgumentsError(f"a string is longer than {_LONGEST - 1} bytes")
        size += length + _POINTER
        if size > _LARGEST:
            raise ArgumentsError(f"the command line and the environment are larger than {_LARGEST} bytes")
        if count > _COUNT:
            raise ArgumentsError(f"the command line and the environment have more than {_COUNT} strings")


def is_variable_name(name: str) -> bool:
    """Return whether a variable can have that name: printable ASCII without `=`, as in Kubernetes."""
    return _NAME.fullmatch(name) is not None

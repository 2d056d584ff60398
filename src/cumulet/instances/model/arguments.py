"""The words that a process is started with, its command line and its environment, within what execve(2) takes."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Bytes of one word with the NUL at its end (`MAX_ARG_STRLEN`).
_LONGEST = 128 * 1024
#: Bytes of all, each with its NUL and its pointer: half of what Linux allows where the stack may have 8 MiB.
_LARGEST = 1024 * 1024
_COUNT = 10_000
_POINTER = 8

_NAME = re.compile(r"[ -<>-~]{1,1024}")


class ArgumentsError(ValueError):
    """The words are no command line or environment; the message says why, and has no value in it."""


def check_arguments(words: Iterable[str]) -> None:
    """Raises `ArgumentsError` where no process can be started with these words."""
    count = size = 0
    for count, word in enumerate(words, start=1):
        length = len(word.encode()) + 1
        if "\0" in word:
            raise ArgumentsError("a word has a NUL in it")
        if length > _LONGEST:
            raise ArgumentsError(f"a word is longer than {_LONGEST - 1} bytes")
        size += length + _POINTER
        if size > _LARGEST:
            raise ArgumentsError(f"the command line and the environment are larger than {_LARGEST} bytes")
        if count > _COUNT:
            raise ArgumentsError(f"the command line and the environment have more than {_COUNT} words")


def is_variable_name(name: str) -> bool:
    """Whether a variable may have that name: printable ASCII without `=`, as Kubernetes has it."""
    return _NAME.fullmatch(name) is not None

"""System calls that the standard library lacks."""

from __future__ import annotations

import ctypes
import os

_LIBC = ctypes.CDLL(None, use_errno=True)


def call(number: int, *arguments: int | bytes | ctypes.Structure) -> int:
    """Make the system call with that number, which is the same on every architecture for calls since Linux 5.0.

    Returns its result. Raises `OSError`.
    """
    result: int = _LIBC.syscall(ctypes.c_long(number), *map(_argument, arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def mount(source: bytes, target: bytes, kind: bytes, flags: int, options: bytes) -> None:
    """mount(2). Raises `OSError`."""
    if _LIBC.mount(source, target, kind, ctypes.c_ulong(flags), options):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def unmount(target: bytes, flags: int) -> None:
    """umount2(2). Raises `OSError`."""
    if _LIBC.umount2(target, flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _argument(value: int | bytes | ctypes.Structure) -> object:
    if isinstance(value, int):
        return ctypes.c_long(value)
    return ctypes.byref(value) if isinstance(value, ctypes.Structure) else value

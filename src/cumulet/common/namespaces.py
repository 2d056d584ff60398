"""Network namespaces of the machine (ip-netns(8), network_namespaces(7)).

A namespace belongs to a thread, and a socket to the namespace of the thread that creates it (setns(2)). So work in another
namespace has a thread of its own, and all other threads stay where they are.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

#: The machine's folder of named network namespaces.
NAMESPACES = Path("/run/netns")

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


def enter(namespace: str | Path) -> None:
    """Move this thread into a namespace, by its name or by a file that names it. Raises `OSError`."""
    descriptor = os.open(NAMESPACES / namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _LIBC.setns(descriptor, _CLONE_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(namespace))
    finally:
        os.close(descriptor)


def inside(namespace: str | Path | None, work: Callable[[], T]) -> T:
    """Do some work in a namespace, on a thread of its own, and return its result; `None` is the namespace of the caller.

    Raises `OSError` if the namespace cannot be entered, and what `work` raises.
    """
    if namespace is None:
        return work()
    done: Future[T] = Future()

    def run() -> None:
        try:
            enter(namespace)
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    thread = threading.Thread(target=run, name=f"in {namespace}", daemon=True)
    thread.start()
    thread.join()
    return done.result()


def exists(namespace: str) -> bool:
    """Return whether a name is that of a namespace. A file without one is what a killed ip(8) leaves."""
    try:
        inside(namespace, lambda: None)
    except OSError:
        return False
    return True

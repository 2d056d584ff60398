"""What is said about a failure, and whether it is one of the moment."""

from __future__ import annotations

import errno
import sqlite3

from cumulet.common.ascii import fold
from cumulet.instances.runtime.conmon import RuntimeFailure
from cumulet.instances.sandbox.errors import SandboxError

#: Failures of the machine that pass, as the kernel and the runtime name them.
_TRANSIENT = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.EAGAIN,
    errno.EIO,
    errno.EINTR,
)
_WORDS = (
    "no space left on device",
    "disk quota exceeded",
    "cannot allocate memory",
    "too many open files",
    "resource temporarily unavailable",
    "input/output error",
)


def is_transient(error: BaseException) -> bool:
    """Return whether the same start can succeed later, because the machine and not the container is the cause."""
    if isinstance(error, OSError) and error.errno in _TRANSIENT:
        return True
    text = fold(str(error))
    return any(words in text for words in _WORDS)


def cause_of(error: BaseException) -> BaseException:
    """Return the first failure of a group of failures, or the failure itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def reason_of(error: BaseException) -> str:
    """Return the published reason of a failure, without paths of this machine.

    Of an unexpected error it is only the type, as its text may contain secrets.
    """
    error = cause_of(error)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, (SandboxError, RuntimeFailure, sqlite3.Error)):
        return str(error)
    return f"an internal error ({type(error).__name__}); the log of the room 'instances' has more"


def start_message(error: Exception) -> str:
    """Return the message about a container that could not be started; that of the runtime in containerd's words."""
    if isinstance(error, RuntimeFailure):
        prefix = "failed to create containerd task: failed to create shim task: OCI runtime create failed"
        return f"{prefix}: {error}: unknown"
    return reason_of(error) if isinstance(error, OSError) else str(error)

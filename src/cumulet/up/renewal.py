"""Renews certificates while the rooms run: a timer that fires when the first is due, and a process that renews them.

The timer follows the wall clock (timerfd_create(2), CLOCK_REALTIME), so that it is right after the machine was suspended.
A process of its own does the work: the process that forks the rooms never reads the keys of the authorities.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime as dt
import logging
import math
import os
import signal
from typing import NoReturn

from cumulet.common import clock
from cumulet.common.config import Config
from cumulet.up import certificates

log = logging.getLogger(__name__)

_CLOCK_REALTIME = 0
_TFD_CLOEXEC, _TFD_NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK
_TFD_TIMER_ABSTIME = 1
#: The least time between two attempts.
_PAUSE = dt.timedelta(hours=1)


class _Spec(ctypes.Structure):
    """`struct itimerspec`: the interval and the first expiration, each in seconds and nanoseconds."""

    _fields_ = (
        ("interval_seconds", ctypes.c_long),
        ("interval_nanoseconds", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
    )


class Timer:
    """A file descriptor that becomes readable at a given time."""

    def __init__(self) -> None:
        """Raises `OSError`."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = self._libc.timerfd_create(_CLOCK_REALTIME, _TFD_CLOEXEC | _TFD_NONBLOCK)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def set(self, moment: dt.datetime) -> None:
        """Set the time, to the second after it. If it has passed, the descriptor is readable at once. Raises `OSError`."""
        # A timer that fires before the moment would find nothing due.
        spec = _Spec(0, 0, max(math.ceil(moment.timestamp()), 1), 0)
        if self._libc.timerfd_settime(self._descriptor, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def take(self) -> None:
        """Make the descriptor unreadable until the next time that is set."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._descriptor, 8)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)


def start(config: Config) -> int:
    """Renew due certificates in a new process and return its id."""
    process = os.fork()
    if process == 0:
        _become(config)
    return process


def _become(config: Config) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        changed = certificates.maintain(config)
        log.info("certificates were renewed", extra={"authorities": sorted(changed)})
    except Exception:
        log.exception("certificates could not be renewed")
    finally:
        logging.shutdown()
        os._exit(0)


def due(config: Config, after: dt.datetime | None = None) -> dt.datetime:
    """Return when to renew next, some time after the last attempt if there was one."""
    now = clock.now()
    try:
        moment = certificates.next_renewal(config)
    except (OSError, ValueError):
        log.exception("the certificates cannot be read")
        moment = now + _PAUSE
    return moment if after is None else max(moment, after + _PAUSE)

"""Renews certificates while the rooms run: a timer that tells when the first is due, and a process that does it.

The timer is of the wall clock (timerfd_create(2), CLOCK_REALTIME), so that it is right after the machine has slept. The
work is done in a process of its own: the keys of the authorities are never in one that rooms are forked from.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime as dt
import logging
import os
import signal
from typing import NoReturn

from cumulet.common.config import Config
from cumulet.up import certificates

log = logging.getLogger(__name__)

_CLOCK_REALTIME = 0
_TFD_CLOEXEC, _TFD_NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK
_TFD_TIMER_ABSTIME = 1
#: When it has failed, it is tried again after this, in seconds.
_AGAIN = 3600


class _Spec(ctypes.Structure):
    """`struct itimerspec`: the interval and the first time, each in seconds and nanoseconds."""

    _fields_ = (
        ("interval_seconds", ctypes.c_long),
        ("interval_nanoseconds", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
    )


class Timer:
    """A descriptor that can be read once a moment has come."""

    def __init__(self) -> None:
        """Raises `OSError`."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = self._libc.timerfd_create(_CLOCK_REALTIME, _TFD_CLOEXEC | _TFD_NONBLOCK)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def set(self, moment: dt.datetime) -> None:
        """Tell of this moment, at once where it is over. Raises `OSError`."""
        spec = _Spec(0, 0, max(int(moment.timestamp()), 1), 0)
        if self._libc.timerfd_settime(self._descriptor, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def take(self) -> None:
        """Take in that the moment has come."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._descriptor, 8)

    def close(self) -> None:
        """Tell of nothing more."""
        os.close(self._descriptor)


def start(config: Config) -> int:
    """Renew what is due in a process of its own; its process id. It ends with 0 where all is renewed."""
    process = os.fork()
    if process == 0:
        _become(config)
    return process


def _become(config: Config) -> NoReturn:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        changed = certificates.maintain(config)
        log.info("certificates were renewed", extra={"authorities": sorted(changed)})
        code = 0
    except Exception:
        log.exception("certificates could not be renewed")
    finally:
        logging.shutdown()
        os._exit(code)


def due(config: Config, now: dt.datetime, *, failed: bool = False) -> dt.datetime:
    """When to renew next."""
    moment = certificates.next_renewal(config)
    return max(moment, now + dt.timedelta(seconds=_AGAIN)) if failed else moment

"""Rotates the logs of running containers, with the kubelet's settings `containerLogMaxSize` and `containerLogMaxFiles`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from cumulet.common.limits import ContainerLogs
from cumulet.instances.streams.log_files import LogFiles

log = logging.getLogger(__name__)

#: Seconds between two checks. A kubelet has 10, in which a log can grow by gigabytes; a check reads only sizes.
_PERIOD = 1.0


class WrittenLog(NamedTuple):
    """The log of a running container, and the control pipe of its conmon."""

    files: LogFiles
    control: Path


async def rotate(logs: Callable[[], Iterable[WrittenLog]], limits: ContainerLogs) -> None:
    """Rotate the logs that have reached the largest size, until cancelled."""
    while True:
        await asyncio.sleep(_PERIOD)
        await asyncio.to_thread(_rotate, [*logs()], limits)


def _rotate(logs: Iterable[WrittenLog], limits: ContainerLogs) -> None:
    for files, control in logs:
        try:
            files.rotate(control, max_size=limits.max_size, max_files=limits.max_files)
        except OSError as error:
            log.warning("the log %s is not rotated: %s", files.path, error)

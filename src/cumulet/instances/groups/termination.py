"""The message that a container leaves at its end: the content of a file or, if it failed, the end of its log."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from cumulet.instances.model.properties import ContainerProperties
from cumulet.instances.sandbox.mounts import Bind
from cumulet.instances.streams import logs
from cumulet.instances.streams.log_files import LogFiles

#: In the folder of an attempt: the file that is mounted at `terminationMessagePath`.
_FILE = "termination-log"
#: The most bytes of the file (`MaxContainerTerminationMessageLength`).
_LONGEST = 4096
#: The most lines and bytes of the log.
_LINES, _BYTES = 80, 2048


def make_file(bundle: Path, properties: ContainerProperties) -> Bind:
    """Create the file of an attempt, which every user of the container can write; return where it is mounted."""
    path = bundle / _FILE
    path.touch()
    path.chmod(0o666)
    return Bind(path, properties.termination_message_path, False)


async def read_message(bundle: Path, log: LogFiles, properties: ContainerProperties, code: int) -> str:
    """Return the message of an attempt that has ended, as the kubelet finds it."""
    message = await asyncio.to_thread(_last_bytes, bundle / _FILE)
    if not message and code and properties.termination_message_policy == "FallbackToLogsOnError":
        message = await logs.end_of(log, logs.Query(tail=_LINES), _BYTES)
    return message.decode(errors="replace")


def _last_bytes(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""  # an attempt of an earlier version
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            return b""
        file.seek(max(found.st_size - _LONGEST, 0))
        return file.read(_LONGEST)

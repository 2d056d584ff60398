"""Mounts the root of a container: a folder of its own over the layers of its image (Linux, "Overlay Filesystem").

The folders are named by descriptors (`/proc/self/fd/N`), because the options of a mount are bounded: 4096 bytes for all of
mount(2), 255 for each of fsconfig(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from cumulet.instances.sandbox import syscalls
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.sandbox.mounts import attach

_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_CLOEXEC = 1
_SET_STRING, _CREATE = 1, 6
#: Bytes of the kernel's message about a failure.
_MESSAGE = 1024


def mount_overlay(layers: Sequence[Path], upper: Path, work: Path, target: Path) -> None:
    """Mount a container's root: `upper` over the image's layers, the lowest first. Raises `SandboxError`, `OSError`.

    A folder that is in the image twice is mounted once, where it is topmost: all that it contains is there.
    """
    with _opened([*dict.fromkeys(reversed(layers)), upper, work]) as names:
        *below, upper_name, work_name = names
        context = _new_overlay(below[0])
        if context is None:
            mount_overlay_at_once(below, upper_name, work_name, target)
            return
        try:
            _mount_by_steps(context, below[1:], upper_name, work_name, target)
        finally:
            os.close(context)


def mount_overlay_at_once(below: Sequence[str], upper: str, work: str, target: Path) -> None:
    """Do the same on a kernel that takes all options at once (before Linux 6.7). Raises `SandboxError`."""
    options = f"lowerdir={':'.join(below)},upperdir={upper},workdir={work}".encode()
    if len(options) >= os.sysconf("SC_PAGE_SIZE"):
        raise SandboxError(f"this kernel cannot mount the {len(below)} folders of the image's layers; use Linux 6.7")
    try:
        syscalls.mount(b"overlay", os.fsencode(target), b"overlay", 0, options)
    except OSError as error:
        raise SandboxError(f"mounting overlay on {target}: {error.strerror}") from None


def _mount_by_steps(context: int, below: Sequence[str], upper: str, work: str, target: Path) -> None:
    try:
        for name in below:
            _set(context, b"lowerdir+", name)
        _set(context, b"upperdir", upper)
        _set(context, b"workdir", work)
        syscalls.call(_FSCONFIG, context, _CREATE, 0, 0, 0)
        tree = syscalls.call(_FSMOUNT, context, _CLOEXEC, 0)
    except OSError as error:
        raise SandboxError(f"mounting overlay on {target}: {_message(context) or error.strerror}") from None
    attach(tree, target)


def _new_overlay(topmost: str) -> int | None:
    """Return the context of a new overlay with its topmost layer (fsopen(2)).

    Returns `None` if the kernel takes no layers one by one. Raises `SandboxError`.
    """
    context = None
    try:
        context = syscalls.call(_FSOPEN, b"overlay", _CLOEXEC)
        _set(context, b"lowerdir+", topmost)
    except OSError as error:
        if context is not None:
            os.close(context)
        if error.errno not in (errno.ENOSYS, errno.EINVAL):
            raise SandboxError(f"mounting overlay: {error.strerror}") from None
        return None
    return context


def _set(context: int, key: bytes, value: str) -> None:
    syscalls.call(_FSCONFIG, context, _SET_STRING, key, value.encode(), 0)


def _message(context: int) -> str:
    """Return the kernel's own words about a failure; they can be missing."""
    try:
        return os.read(context, _MESSAGE).decode(errors="replace").strip().removeprefix("e ")
    except OSError:
        return ""


@contextlib.contextmanager
def _opened(folders: Sequence[Path]) -> Iterator[list[str]]:
    """Yield short names of folders."""
    with contextlib.ExitStack() as stack:
        names = []
        for folder in folders:
            descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            names.append(f"/proc/self/fd/{descriptor}")
        yield names

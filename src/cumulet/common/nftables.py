"""nftables through its library, without a process for each change (libnftables(3), libnftables-json(5), nft(8)).

libnftables sends its messages from the thread that calls it. A context lives on a thread of its own, which has entered the
network namespace whose rules it reads and writes.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import functools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import msgspec

from cumulet.common.namespaces import enter

#: The library's name on Debian, Ubuntu, Fedora and Arch Linux; Debian's package is libnftables1, which `nftables` needs.
LIBRARY = "libnftables.so.1"

#: `NFT_CTX_OUTPUT_JSON`, and all of `NFT_CTX_OUTPUT_NUMERIC_…`: numbers in place of words of the machine's files.
_JSON, _NUMERIC = 1 << 4, 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10

#: libnftables has state that contexts share, such as its tables of names.
_LIBRARY_LOCK = threading.Lock()


class NftablesError(Exception):
    """nftables refused a command. The message is its own, on one line, with the part of the script that it points to."""


class AbsentError(NftablesError):
    """A table, chain, set or element that the script names does not exist."""


class UnavailableError(NftablesError):
    """There is no libnftables, no such namespace, or no permission."""


class Nftables:
    """The rules of one network namespace: of the named one, or of this thread's with `None`.

    Calls run one after the other, on a thread that ends with `close`. The object is also a context manager. Raises
    `UnavailableError`.
    """

    def __init__(self, namespace: str | None = None) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"nftables {namespace or ''}".strip())
        try:
            self._context = self._thread.submit(_open, namespace).result()
        except BaseException:
            self._thread.shutdown()
            raise

    def __enter__(self) -> Nftables:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread, after the calls that were begun. The rules stay."""
        self._thread.submit(_library().nft_ctx_free, self._context)
        self._thread.shutdown()

    async def run(self, script: str) -> None:
        """Run a script of nft(8) in one transaction: all of it is in effect, or nothing. Raises `NftablesError`.

        A transaction that has begun is completed also when the caller is cancelled.
        """
        await asyncio.wrap_future(self._thread.submit(_run, self._context, script))

    def run_now(self, script: str) -> None:
        """Run a script as `run` does, and block this thread meanwhile. Raises `NftablesError`."""
        self._thread.submit(_run, self._context, script).result()

    async def listing(self, what: str = "ruleset") -> list[dict[str, Any]]:
        """Return the objects that `list <what>` shows, such as `table ip services`, as libnftables-json(5) has them.

        Each object has one key, its kind, such as `chain`. Raises `NftablesError`.
        """
        return await asyncio.wrap_future(self._thread.submit(_list, self._context, what))

    def listing_now(self, what: str = "ruleset") -> list[dict[str, Any]]:
        """Return what `listing` returns, and block this thread meanwhile. Raises `NftablesError`."""
        return self._thread.submit(_list, self._context, what).result()

    def check_now(self, script: str) -> None:
        """Ask the kernel whether it would accept a script, and change nothing. Raises `NftablesError`."""
        self._thread.submit(_check, self._context, script).result()


def missing() -> str | None:
    """Return why libnftables cannot be used, or `None`."""
    try:
        _library()
    except UnavailableError as error:
        return str(error)
    return None


@functools.cache
def _library() -> ctypes.CDLL:
    """Load libnftables. Raises `UnavailableError`."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise UnavailableError(str(error)) from None
    context, text = ctypes.c_void_p, ctypes.c_char_p
    library.nft_ctx_new.restype = context
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    for name in ("nft_ctx_free", "nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [context]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).restype = text
        getattr(library, name).argtypes = [context]
    library.nft_run_cmd_from_buffer.argtypes = [context, text]
    library.nft_ctx_output_set_flags.argtypes = [context, ctypes.c_uint]
    library.nft_ctx_set_dry_run.argtypes = [context, ctypes.c_bool]
    return library


def _open(namespace: str | None) -> int:
    """Enter the namespace on this thread, and return a new context."""
    library = _library()
    try:
        if namespace is not None:
            enter(namespace)
    except OSError as error:
        raise UnavailableError(f"the network namespace {namespace}: {error.strerror}") from None
    with _LIBRARY_LOCK:
        context: int | None = library.nft_ctx_new(0)
        if not context or library.nft_ctx_buffer_output(context) or library.nft_ctx_buffer_error(context):
            raise UnavailableError("libnftables cannot open its socket")
        library.nft_ctx_output_set_flags(context, _JSON | _NUMERIC)
    return context


def _run(context: int, script: str) -> bytes:
    """Run a script, and return what it printed."""
    library = _library()
    with _LIBRARY_LOCK:
        failed = library.nft_run_cmd_from_buffer(context, script.encode())
        # Reading empties the buffers.
        output: bytes = library.nft_ctx_get_output_buffer(context)
        errors: bytes = library.nft_ctx_get_error_buffer(context)
    if failed:
        raise _error(errors.decode(errors="replace"))
    return output


def _check(context: int, script: str) -> None:
    _library().nft_ctx_set_dry_run(context, True)
    try:
        _run(context, script)
    finally:
        _library().nft_ctx_set_dry_run(context, False)


def _list(context: int, what: str) -> list[dict[str, Any]]:
    objects: list[dict[str, Any]] = msgspec.json.decode(_run(context, f"list {what}"))["nftables"]
    return [item for item in objects if "metainfo" not in item]


def _error(text: str) -> NftablesError:
    """Return the error for what nft reports: lines of `Error: …`, each with a line of the script and a mark below a part."""
    lines = [line for line in text.splitlines() if line.strip()]
    message = next((line for line in lines if "Error: " in line), text.strip() or "it failed without a message")
    reason = message.partition("Error: ")[2] or message
    at = lines.index(message) if message in lines else 0
    pointed = lines[at + 1].strip()[:200] if len(lines) > at + 1 else ""
    shown = f"{reason}: {pointed}" if pointed else reason
    if os.strerror(errno.ENOENT) in reason:
        return AbsentError(shown)
    if os.strerror(errno.EPERM) in reason:
        return UnavailableError(shown)
    return NftablesError(shown)

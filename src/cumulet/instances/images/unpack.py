"""Unpacks untrusted layers: decompresses an archive, applies its entries, and verifies its digest."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cumulet.common import digests
from cumulet.common.digests import Digest
from cumulet.instances.images.below import Below
from cumulet.instances.images.budget import Budget, LayerError
from cumulet.instances.images.changes import Changes
from cumulet.instances.images.compression import CHUNK, Decompressed
from cumulet.instances.images.needs import Needs
from cumulet.instances.images.numbers import TarError
from cumulet.instances.images.tar import Archive

#: Failures that are not the layer's.
_OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Unpacked(NamedTuple):
    """The bytes of an unpacked layer, its needs, and its device nodes: their number, and the path of the first."""

    size: int
    needs: Needs
    devices: int
    first_device: str


def unpack(
    source: Callable[[], bytes], root: Path, diff_id: Digest, budget: Budget, below: Below | None = None
) -> Unpacked:
    """Unpack a layer into the empty folder `root`, and verify its `diff_id`. Raises `LayerError`, `OSError`.

    `source` returns the next piece of the archive, and nothing at its end. Device nodes are left out.
    """
    anchor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    changes = Changes(anchor, below, budget)
    try:
        stream = Decompressed(source, digests.algorithm(diff_id), budget)
        try:
            archive = Archive(stream.read)
            for entry in archive:
                changes.add(archive, entry)
            while stream.read(CHUNK):
                pass  # the digest includes what follows the last entry
        finally:
            stream.close()
            changes.close()
    except (TarError, OSError, OverflowError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            raise
        raise LayerError(f"the layer cannot be unpacked: {error}") from error
    finally:
        os.close(anchor)
    if stream.digest() != diff_id:
        raise LayerError(f"the layer unpacks to {stream.digest()}, but the image's configuration has {diff_id}")
    return Unpacked(stream.size, changes.needs, changes.devices, changes.first_device)

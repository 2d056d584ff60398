"""The images on this machine: what a name means, which layers it has, and who may use it without asking its registry.

An image that was pulled with credentials is used again without its registry only by whoever has the same credentials, as the
policy `NeverVerifyPreloadedImages` of kubelets demands (Kubernetes enhancement 2535). An image that its registry gave to
anybody is for everybody. Credentials are kept as a keyed hash.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from cumulet.common.digests import Digest, DigestField
from cumulet.common.image_reference import Reference
from cumulet.common.private_files import private_folder, write_private
from cumulet.instances.images.image_config import Execution

log = logging.getLogger(__name__)

_KEY_BYTES = 32
#: Whom a credential is of: its kind, and what tells it from others of that kind, such as a user name and a password.
Subject = tuple[str, ...]

#: Different credentials that are remembered for an image; the oldest are forgotten.
_ACCESS = 1000


class ImageRecord(msgspec.Struct):
    """An image: `registry/repository`, the digest of its manifest or index, its tags, and the digests of its layers.

    `stack` has the names of the folders that are mounted for it, the lowest first, in the folder of layers. `size` is the bytes in the registry, `pulled` the time of the first pull (seconds since the epoch). `access` has the hashes
    of the credentials that its registry accepted; `public` says that it demands none. `platform` is set if it is not this
    machine's.
    """

    repository: str
    digest: DigestField
    layers: list[DigestField]
    stack: list[str]
    size: int
    pulled: float
    tags: list[str] = []
    access: list[str] = []
    public: bool = False
    platform: str | None = None

    @property
    def id(self) -> str:
        """`registry/repository@digest`, which names the image in a container's status."""
        return f"{self.repository}@{self.digest}"


class _Stored(ImageRecord):
    """An image with its configuration, which can be large and stays on disk."""

    config: Execution = Execution()


class ImageRecords:
    """Keeps a file for each image; its modification time is the time of its last use."""

    def __init__(self, folder: Path) -> None:
        self._folder = private_folder(folder / "records")
        self._records: dict[str, ImageRecord] = {}
        self._tags: dict[tuple[str, str], str] = {}
        self._writing = asyncio.Lock()
        #: The configurations that are not written yet.
        self._unwritten: dict[str, Execution] = {}
        key = folder / "access.key"
        if not key.exists():
            write_private(key, secrets.token_bytes(_KEY_BYTES))
        self._key = key.read_bytes()
        for file in self._folder.glob("*.json"):
            try:
                self._remember(msgspec.json.decode(file.read_bytes(), type=ImageRecord))
            except msgspec.MsgspecError as error:
                log.warning("the record of an image is not valid and is removed: %s: %s", file, error)
                file.unlink()

    def access_of(self, registry: str, subject: Subject) -> str:
        """Return the hash of whom a registry gave access."""
        text = msgspec.json.encode([registry, *subject])
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()

    def find(self, reference: Reference) -> ImageRecord | None:
        """Return the image that a reference named at its last pull."""
        if reference.is_digest:
            return self._records.get(str(reference))
        return self._records.get(self._tags.get((reference.name, reference.target), ""))

    def get(self, image_id: str) -> ImageRecord | None:
        """Return an image by its id."""
        return self._records.get(image_id)

    def __iter__(self) -> Iterator[ImageRecord]:
        return iter(list(self._records.values()))

    def last_used(self, record: ImageRecord) -> float:
        """Return when an image was used last, in seconds since the epoch."""
        try:
            return self._file(record.id).stat().st_mtime
        except FileNotFoundError:
            return record.pulled

    def use(self, record: ImageRecord) -> None:
        """Record that an image is used now."""
        with contextlib.suppress(FileNotFoundError):  # it may not be written yet
            os.utime(self._file(record.id))

    def configuration(self, record: ImageRecord) -> Execution | None:
        """Return the configuration of an image, or `None` if its record is gone or not valid."""
        if record.id in self._unwritten:
            return self._unwritten[record.id]
        try:
            return msgspec.json.decode(self._file(record.id).read_bytes(), type=_Stored).config
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    def pulled(self, reference: Reference, record: ImageRecord, config: Execution) -> list[ImageRecord]:
        """Record a pull: the reference names this image from now on. Return the records that `write` has to write."""
        known = self._records.get(record.id)
        if known is not None:
            record.pulled, record.tags = known.pulled, list(known.tags)
            record.public = record.public or known.public
            record.access = [*(item for item in known.access if item not in record.access), *record.access][-_ACCESS:]
        changed = [record]
        if not reference.is_digest and reference.target not in record.tags:
            record.tags.append(reference.target)
            moved = self._records.get(self._tags.get((reference.name, reference.target), ""))
            if moved is not None:
                moved.tags.remove(reference.target)
                changed.append(moved)
        if known == record and self.configuration(known) is not None:
            self.use(record)
            return []
        self._remember(record)
        self._unwritten[record.id] = config
        return changed

    async def write(self, changed: list[ImageRecord]) -> None:
        """Write the records of images, with their configurations. Raises `OSError`."""
        async with self._writing:
            for record in changed:
                try:
                    if (config := self.configuration(record)) is not None:
                        await asyncio.to_thread(self._write, record, config)
                finally:
                    self._unwritten.pop(record.id, None)

    def remove(self, record: ImageRecord) -> None:
        """Forget an image."""
        self._records.pop(record.id, None)
        self._unwritten.pop(record.id, None)
        for tag in record.tags:
            self._tags.pop((record.repository, tag), None)
        self._file(record.id).unlink(missing_ok=True)

    def _remember(self, record: ImageRecord) -> None:
        self._records[record.id] = record
        for tag in record.tags:
            self._tags[record.repository, tag] = record.id

    def _write(self, record: ImageRecord, config: Execution) -> None:
        if self._records.get(record.id) is record:
            fields = {name: getattr(record, name) for name in record.__struct_fields__}
            write_private(self._file(record.id), msgspec.json.encode(_Stored(**fields, config=config)))

    def _file(self, image_id: str) -> Path:
        return self._folder / f"{hashlib.sha256(image_id.encode()).hexdigest()}.json"


def new_record(
    reference: Reference, digest: Digest, layers: list[Digest], stack: list[str], size: int, platform: str | None
) -> ImageRecord:
    """Return the record of an image that was pulled now."""
    return ImageRecord(reference.name, digest, layers, stack, size, time.time(), platform=platform)

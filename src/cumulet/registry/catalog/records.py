"""The rows of the catalog, as the rest of the room sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from cumulet.common.digests import Digest
from cumulet.registry.catalog.locks import Attributes


class Policy(msgspec.Struct, frozen=True):
    """Whether something is done after some days."""

    enabled: bool = False
    days: int = 7


class Resource(msgspec.Struct, rename="camel", kw_only=True):
    """What Azure Resource Manager says of a registry; the generations are those of the admin user's passwords.

    `retention` removes manifests that no tag has named for so many days, `soft_delete` keeps what was deleted for so
    many days, and `storage_quota` is the most bytes that the registry may hold.
    """

    location: str
    sku: str = "Basic"
    tags: dict[str, str] = {}
    admin_user_enabled: bool = False
    anonymous_pull_enabled: bool = False
    role_assignment_mode: str = "LegacyRegistryPermissions"
    password_generations: list[int] = msgspec.field(default_factory=lambda: [0, 0])
    retention: Policy = Policy()
    soft_delete: Policy = Policy()
    storage_quota: int | None = None


class Registry(msgspec.Struct):
    """One registry; `key` is its name in lower case."""

    key: str
    id: str
    name: str
    resource: Resource
    created: str


class Repository(msgspec.Struct, frozen=True):
    """What is told of a repository; the counts are of what was not deleted."""

    name: str
    created: str
    updated: str
    attributes: Attributes
    manifests: int
    tags: int


class Manifest(msgspec.Struct, frozen=True):
    """A manifest, byte for byte as it was pushed, with what is asked of it without reading it.

    `locks` are its own; `readable` also minds those of its repository, and of its tag where it was read by one.
    `deleted` is when it was soft-deleted.
    """

    digest: str
    media_type: str
    body: bytes
    subject: str | None
    artifact_type: str | None
    annotations: dict[str, str] | None
    created: str
    locks: int = 0
    deleted: str | None = None
    readable: bool = True

    @property
    def attributes(self) -> Attributes:
        """Its `changeableAttributes`."""
        return Attributes.of(self.locks)


class Blob(NamedTuple):
    """A blob as a repository has it; `size` in bytes, `readable` unless the repository is locked."""

    size: int
    readable: bool


class Parts(msgspec.Struct, frozen=True):
    """The digests that a manifest names: all of them, and those that must be there before it is taken."""

    named: tuple[Digest, ...] = ()
    required: tuple[Digest, ...] = ()


class Tag(NamedTuple):
    """A tag and the digest of the manifest that it names."""

    name: str
    digest: str
    created: str
    updated: str
    locks: int = 0

    @property
    def attributes(self) -> Attributes:
        """Its `changeableAttributes`."""
        return Attributes.of(self.locks)


class DeletedTag(NamedTuple):
    """A tag that went with its soft-deleted manifest."""

    name: str
    digest: str
    deleted: str


class Upload(msgspec.Struct, frozen=True):
    """An upload session and whose it is; `algorithm` is that of the digest that it will probably have."""

    session: str
    registry: str
    repository: str
    principal: str
    started: str
    algorithm: str = "sha256"


class MissingPartsError(Exception):
    """A manifest names what its repository does not have: `digests`."""

    def __init__(self, digests: Sequence[str]) -> None:
        super().__init__(", ".join(digests))
        self.digests = digests

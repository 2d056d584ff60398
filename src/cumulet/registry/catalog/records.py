"""The records of the catalog."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from cumulet.common.digests import Digest
from cumulet.registry.catalog.locks import Attributes


class Policy(msgspec.Struct, frozen=True):
    """A policy that takes effect after some days, if it is enabled."""

    enabled: bool = False
    days: int = 7


class Resource(msgspec.Struct, rename="camel", kw_only=True):
    """The properties of a registry in Azure Resource Manager.

    `password_generations` counts the renewals of the admin user's two passwords. `retention` removes manifests that had no
    tag for its days. `soft_delete` keeps deleted manifests for its days. `storage_quota` is the limit in bytes.
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
    """A registry. `key` is its name in lower case, `id` its ARM resource id, and `created` a time in RFC 3339."""

    key: str
    id: str
    name: str
    resource: Resource
    created: str


class Repository(msgspec.Struct, frozen=True):
    """A repository. The counts leave out soft-deleted manifests and tags."""

    name: str
    created: str
    updated: str
    attributes: Attributes
    manifests: int
    tags: int


class Manifest(msgspec.Struct, frozen=True):
    """A manifest, byte for byte as it was pushed, with the fields that queries need.

    `locks` are its own. `readable` also covers the locks of its repository, and of the tag that it was read by.
    `deleted` is the time of its soft deletion.
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
    """A blob of a repository. `size` is in bytes. `readable` is false where the repository has a read lock."""

    size: int
    readable: bool


class Parts(msgspec.Struct, frozen=True):
    """The digests that a manifest names: all of them, and those that its repository must have before the push."""

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
    """A tag that was deleted with its soft-deleted manifest."""

    name: str
    digest: str
    deleted: str


class Upload(msgspec.Struct, frozen=True):
    """An upload session and its owner. `algorithm` is the expected algorithm of its digest."""

    session: str
    registry: str
    repository: str
    principal: str
    started: str
    algorithm: str = "sha256"


class MissingPartsError(Exception):
    """A manifest names `digests` that its repository does not have."""

    def __init__(self, digests: Sequence[str]) -> None:
        super().__init__(", ".join(digests))
        self.digests = digests

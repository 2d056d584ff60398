"""The JSON documents of ACR's data plane (2021-07-01): repositories, tags and manifests."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, UnsetType

from cumulet.registry.catalog import manifest_parser
from cumulet.registry.catalog.locks import Attributes
from cumulet.registry.catalog.manifest_parser import Descriptor
from cumulet.registry.catalog.store import DeletedTag, Manifest, Repository, Tag


class Platform(msgspec.Struct, frozen=True):
    """The platform of an image, or of an entry of an index."""

    architecture: str | None = None
    os: str | None = None


class Head(msgspec.Struct, rename="camel"):
    """The first fields of most documents: the login server and the repository."""

    registry: str
    image_name: str


class RepositoryDocument(Head):
    """A repository."""

    created_time: str
    last_update_time: str
    manifest_count: int
    tag_count: int
    changeable_attributes: Attributes


class TagAttributes(msgspec.Struct, rename="camel"):
    """A tag."""

    name: str
    digest: str
    created_time: str
    last_update_time: str
    signed: bool
    changeable_attributes: Attributes


class Reference(msgspec.Struct):
    """An entry of an index."""

    digest: str
    architecture: str | None
    os: str | None


class ManifestAttributes(msgspec.Struct, rename="camel", kw_only=True):
    """A manifest. `image_size` is in bytes. An index has `references`, an image a `config_media_type`."""

    digest: str
    image_size: int
    created_time: str
    last_update_time: str
    architecture: str | UnsetType = UNSET
    os: str | UnsetType = UNSET
    media_type: str
    tags: list[str]
    changeable_attributes: Attributes
    artifact_type: str | UnsetType = UNSET
    references: list[Reference] | UnsetType = UNSET
    config_media_type: str | UnsetType | None = UNSET


class TagDocument(Head):
    """One tag."""

    tag: TagAttributes


class TagsDocument(Head):
    """A page of tags."""

    tags: list[TagAttributes]


class ManifestDocument(Head):
    """One manifest."""

    manifest: ManifestAttributes


class ManifestsDocument(Head):
    """A page of manifests."""

    manifests: list[ManifestAttributes]


class RepositoriesDocument(msgspec.Struct):
    """A page of repository names."""

    repositories: list[str]


class DeletedManifestAttributes(msgspec.Struct, rename="camel"):
    """A soft-deleted manifest."""

    digest: str
    media_type: str
    deleted_at: str | None


class DeletedManifestsDocument(msgspec.Struct):
    """A page of soft-deleted manifests."""

    manifests: list[DeletedManifestAttributes]


class DeletedTagAttributes(msgspec.Struct, rename="camel"):
    """A tag that was deleted with its soft-deleted manifest."""

    tag: str
    digest: str
    deleted_at: str


class DeletedTagsDocument(msgspec.Struct):
    """A page of tags of soft-deleted manifests."""

    tags: list[DeletedTagAttributes]


class DeletionDocument(msgspec.Struct, rename="camel"):
    """The content of a deleted repository: digests and tag names."""

    manifests_deleted: list[str]
    tags_deleted: list[str]


class RestorationDocument(msgspec.Struct):
    """A restored manifest."""

    repository: str
    digest: str
    tag: str | UnsetType


def repository(head: Head, item: Repository) -> RepositoryDocument:
    """The document of a repository."""
    return RepositoryDocument(
        head.registry,
        head.image_name,
        item.created,
        item.updated,
        item.manifests,
        item.tags,
        item.attributes,
    )


def tag(item: Tag) -> TagAttributes:
    """The attributes of a tag."""
    return TagAttributes(item.name, item.digest, item.created, item.updated, False, item.attributes)


def manifest(item: Manifest, tags: Sequence[str], platform: Platform) -> ManifestAttributes:
    """The attributes of a manifest. `platform` is the one in the config of an image."""
    document = manifest_parser.document(item.body)
    attributes = ManifestAttributes(
        digest=item.digest,
        image_size=len(item.body) + sum(part.size for part in document.contents),
        created_time=item.created,
        last_update_time=item.created,
        architecture=platform.architecture or UNSET,
        os=platform.os or UNSET,
        media_type=item.media_type,
        tags=list(tags),
        changeable_attributes=item.attributes,
        artifact_type=item.artifact_type or UNSET,
    )
    if document.manifests is not None:
        attributes.references = [_reference(part) for part in document.manifests]
    elif document.config is not None:
        attributes.config_media_type = document.config.media_type
    return attributes


def deleted_manifest(item: Manifest) -> DeletedManifestAttributes:
    """The attributes of a soft-deleted manifest."""
    return DeletedManifestAttributes(item.digest, item.media_type, item.deleted)


def deleted_tag(item: DeletedTag) -> DeletedTagAttributes:
    """The attributes of a tag of a soft-deleted manifest."""
    return DeletedTagAttributes(item.name, item.digest, item.deleted)


def _reference(part: Descriptor) -> Reference:
    """An entry of an index. A platform that is not valid is left out."""
    try:
        platform = msgspec.convert(part.platform or {}, Platform)
    except msgspec.ValidationError:
        platform = Platform()
    return Reference(part.digest, platform.architecture, platform.os)

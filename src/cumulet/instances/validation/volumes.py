"""Checks of a group's volumes."""

from __future__ import annotations

import base64
import binascii
import re

from cumulet.common.arm import ArmError, ResourceId
from cumulet.common.ascii import fold
from cumulet.common.kubernetes.quantity import decimal
from cumulet.instances.model.properties import AzureDisk, EmptyDir, GitRepo, Volume
from cumulet.instances.validation.paths import is_relative
from cumulet.instances.validation.text import NAME, invalid, quoted

#: An https URL, with or without credentials, and a branch, a tag or the id of a commit.
_REPOSITORY = re.compile(
    r"(?=.{1,2048}\Z)https://([A-Za-z0-9._~%!$&'()*+,;=:-]+@)?[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?"
    r"/[A-Za-z0-9._~%/+@-]+"
)
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]{0,254}")
_DISK = "microsoft.compute/disks"
_FILES, _DEPTH, _LARGEST = 10_000, 32, 2**60


def check_volume(volume: Volume, path: str, names: set[str]) -> None:
    """Raise `ArmError` for a volume that is not valid; `names` are those of the volumes before it."""
    if not NAME.fullmatch(volume.name):
        raise invalid(
            f"{path}.name",
            f"The volume name '{quoted(volume.name)}' is not valid: a name has 1 to 63 lower-case letters, digits and hyphens, "
            "and a letter or digit at each end.",
        )
    if volume.name in names:
        raise invalid(f"{path}.name", f"The volume name '{volume.name}' is used twice.")
    kinds = (volume.empty_dir, volume.secret, volume.azure_file, volume.git_repo, volume.azure_disk)
    if sum(kind is not None for kind in kinds) != 1:
        raise invalid(path, f"The volume '{volume.name}' must be one of emptyDir, secret, azureFile and gitRepo.")
    if volume.azure_disk is not None:
        _check_disk(volume.name, volume.azure_disk, f"{path}.azureDisk.diskURI")
    if volume.git_repo is not None:
        _check_repository(volume.name, volume.git_repo, f"{path}.gitRepo")
    if volume.empty_dir is not None:
        _check_size(volume.name, volume.empty_dir, f"{path}.emptyDir.sizeLimit")
    if volume.secret is None:
        if volume.items is not None:
            raise invalid(f"{path}.items", f"The volume '{volume.name}' has items, but is not a secret volume.")
        return
    _check_content(volume.name, volume.secret, f"{path}.secret")
    if volume.items is None:
        _check_paths(volume.name, list(volume.secret), f"{path}.secret")
        return
    for number, item in enumerate(volume.items):
        if item.key not in volume.secret:
            raise invalid(
                f"{path}.items[{number}].key",
                f"The secret volume '{volume.name}' references the non-existent key '{quoted(item.key)}'.",
            )
    _check_paths(volume.name, [item.path for item in volume.items], f"{path}.items")


def _check_disk(volume: str, disk: AzureDisk, path: str) -> None:
    try:
        kind = fold(ResourceId(disk.disk_uri).type)
    except ArmError:
        kind = ""
    if kind != _DISK:
        raise invalid(path, f"The diskURI of the volume '{volume}' is not the id of a disk.")


def _check_repository(volume: str, repository: GitRepo, path: str) -> None:
    """Check what becomes an argument of git: none begins with a hyphen, and the folder is in the volume."""
    if not _REPOSITORY.fullmatch(repository.repository):
        raise invalid(f"{path}.repository", f"The repository of the volume '{volume}' must be an https URL.")
    if repository.revision is not None and (
        not _REVISION.fullmatch(repository.revision) or ".." in repository.revision
    ):
        raise invalid(
            f"{path}.revision", f"The revision '{quoted(repository.revision)}' of the volume '{volume}' is not valid."
        )
    folder = repository.folder
    if folder != "." and (
        not folder or folder.startswith("-") or not is_relative(folder) or "." in folder.split("/")
    ):
        raise invalid(f"{path}.directory", f"The directory '{quoted(folder)}' of the volume '{volume}' is not valid.")


def _check_size(volume: str, folder: EmptyDir, path: str) -> None:
    try:
        valid = folder.size_limit is None or 0 <= decimal(folder.size_limit) <= _LARGEST
    except (ValueError, ArithmeticError):
        valid = False
    if not valid:
        raise invalid(path, f"The sizeLimit of the volume '{volume}' is not a quantity of bytes.")


def _check_content(volume: str, files: dict[str, str], path: str) -> None:
    for name, content in files.items():
        try:
            base64.b64decode(content.encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raise invalid(
                path, f"The file '{quoted(name)}' of the secret volume '{volume}' is not valid base64."
            ) from None


def _check_paths(volume: str, paths: list[str], path: str) -> None:
    if len(paths) > _FILES:
        raise invalid(path, f"The secret volume '{volume}' has more than {_FILES} files.")
    taken: set[str] = set()
    for name in paths:
        parts = name.split("/")
        # Names that start with two periods are those of the writer (`sandbox/atomic_writer.py`), as in Kubernetes.
        if (
            len(parts) > _DEPTH
            or not is_relative(name)
            or any(part in (".", "") for part in parts)
            or name.startswith("..")
        ):
            raise invalid(path, f"The file name '{quoted(name)}' of the secret volume '{volume}' is not valid.")
        if name in taken:
            raise invalid(path, f"The file name '{quoted(name)}' of the secret volume '{volume}' is used twice.")
        taken.add(name)
    for name in paths:
        parts = name.split("/")
        if any("/".join(parts[:count]) in taken for count in range(1, len(parts))):
            raise invalid(path, f"The file name '{quoted(name)}' of the secret volume '{volume}' is in another file.")

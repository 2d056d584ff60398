"""Checks of a group's volumes."""

from __future__ import annotations

import base64
import binascii

from cumulet.common.arm import ArmError
from cumulet.instances.model.properties import Volume
from cumulet.instances.validation.paths import is_relative
from cumulet.instances.validation.text import NAME, invalid, quoted

_FILES, _DEPTH = 10_000, 32


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
    if volume.azure_file is not None or volume.git_repo is not None:
        kind = "azureFile" if volume.azure_file is not None else "gitRepo"
        raise ArmError(
            400,
            "UnsupportedVolume",
            f"The volume '{volume.name}' of type {kind} is not supported: use emptyDir or secret.",
            target=f"{path}.{kind}",
        )
    if (volume.empty_dir is None) == (volume.secret is None):
        raise invalid(path, f"The volume '{volume.name}' must be one of emptyDir and secret.")
    if volume.secret is not None:
        _check_files(volume.name, volume.secret, f"{path}.secret")


def _check_files(volume: str, files: dict[str, str], path: str) -> None:
    if len(files) > _FILES:
        raise invalid(path, f"The secret volume '{volume}' has more than {_FILES} files.")
    for name, content in files.items():
        parts = name.split("/")
        if len(parts) > _DEPTH or not is_relative(name) or any(part in (".", "") for part in parts):
            raise invalid(path, f"The file name '{quoted(name)}' of the secret volume '{volume}' is not valid.")
        if any("/".join(parts[:count]) in files for count in range(1, len(parts))):
            raise invalid(path, f"The file name '{quoted(name)}' of the secret volume '{volume}' is in another file.")
        try:
            base64.b64decode(content.encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raise invalid(
                path, f"The file '{quoted(name)}' of the secret volume '{volume}' is not valid base64."
            ) from None

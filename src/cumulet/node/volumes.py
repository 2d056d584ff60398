"""The volumes of a pod, with the content of their files."""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cumulet.common.kubernetes.objects import (
    ConfigMap,
    ConfigMapProjection,
    ConfigMapVolumeSource,
    DownwardAPIVolumeFile,
    EmptyDirVolumeSource,
    KeyToPath,
    Pod,
    Secret,
    SecretProjection,
    Volume,
    VolumeProjection,
)
from cumulet.node.azure_volumes import azure_volume
from cumulet.node.claims import Claims, UnboundError
from cumulet.node.errors import MissingError, MountError, UnsupportedError
from cumulet.node.fields import Fields
from cumulet.node.references import References, config_map_data, not_found, secret_data
from cumulet.node.resource import GroupEmptyDir, GroupVolume
from cumulet.node.tokens import Tokens

#: Of files, and of tokens in a pod with a group of its own.
_DEFAULT_MODE, _OWN_MODE = 0o644, 0o600


def has_files(volume: Volume) -> bool:
    """Return whether the node writes the files of a volume."""
    return not volume.keys().isdisjoint(("secret", "configMap", "projected", "downwardAPI"))


class _File(NamedTuple):
    """A file of a volume; without a mode it has that of the volume."""

    content: bytes
    mode: int | None = None


class _Kept(NamedTuple):
    """Immutable objects by name."""

    secrets: dict[str, Secret]
    config_maps: dict[str, ConfigMap]


class Volumes:
    """Resolves the volumes of pods."""

    def __init__(self, references: References, fields: Fields, tokens: Tokens, claims: Claims) -> None:
        self._references = references
        self._fields = fields
        self._tokens = tokens
        self._claims = claims
        #: Immutable objects by a pod's uid: the pod keeps their content, also when they are made anew.
        self._kept: dict[str, _Kept] = {}

    async def of(self, pod: Pod, volume: Volume) -> GroupVolume:
        """Return a volume of the group. Raises `MountError`, `UnsupportedError`."""
        name = volume["name"]
        if (source := volume.get("emptyDir")) is not None:
            return {"name": name, "emptyDir": _empty_dir(source)}
        try:
            if (disk := self._claims.disk(pod, volume)) is not None:
                return {"name": name, "azureDisk": disk}
            if (own := azure_volume(pod, volume, self._references)) is not None:
                return own
            files = _normal(await self._files(pod, volume))
        except UnboundError:
            raise
        except MissingError as error:
            raise MountError(name, error) from None
        mode = _default_mode(volume)
        translated: GroupVolume = {
            "name": name,
            "secret": {path: base64.b64encode(file.content).decode() for path, file in files.items()},
            "defaultMode": mode,
        }
        if any(file.mode not in (None, mode) for file in files.values()):
            translated["items"] = [
                {"key": path, "path": path, "mode": mode if file.mode is None else file.mode}
                for path, file in files.items()
            ]
        return translated

    def forget(self, uid: str) -> None:
        """Forget a pod that is gone."""
        self._kept.pop(uid, None)
        self._claims.forget(uid)

    async def _files(self, pod: Pod, volume: Volume) -> dict[str, _File]:
        """Return the files of a volume by path. Raises `MissingError`, `UnsupportedError`."""
        if source := volume.get("secret"):
            projection: SecretProjection = {"name": source["secretName"]}
            if "items" in source:
                projection["items"] = source["items"]
            return self._secret(pod, projection, optional=bool(source.get("optional")))
        if config_map := volume.get("configMap"):
            return self._config_map(pod, config_map)
        if (downward := volume.get("downwardAPI")) is not None:
            return self._downward(pod, downward.get("items") or ())
        if (projected := volume.get("projected")) is not None:
            files: dict[str, _File] = {}
            missing: list[MissingError] = []
            for part in projected.get("sources") or ():
                try:
                    files |= await self._part(pod, part)
                except MissingError as error:
                    missing.append(error)
            if missing:
                reasons = list(dict.fromkeys(map(str, missing)))
                again = [error.again for error in missing if error.again is not None]
                raise MissingError(
                    reasons[0] if len(reasons) == 1 else f"[{', '.join(reasons)}]", again=min(again, default=None)
                )
            return files
        kinds = ", ".join(key for key in volume if key != "name")
        raise UnsupportedError(
            f"pod {pod['metadata']['name']} requires volume {volume['name']} which is of an unsupported type ({kinds})"
        )

    async def _part(self, pod: Pod, part: VolumeProjection) -> dict[str, _File]:
        if secret := part.get("secret"):
            return self._secret(pod, secret, optional=bool(secret.get("optional")))
        if config_map := part.get("configMap"):
            return self._config_map(pod, config_map)
        if (fields := part.get("downwardAPI")) is not None:
            return self._downward(pod, fields.get("items") or ())
        if token := part.get("serviceAccountToken"):
            # The group of the pod gets the right to read it from the provider, as from the kubelet.
            mode = _OWN_MODE if "fsGroup" in (pod["spec"].get("securityContext") or {}) else None
            return {token["path"]: _File((await self._tokens.token(pod, token)).encode(), mode)}
        if not part:
            return {}  # the API server dropped a source that is not enabled
        raise UnsupportedError(
            f"pod {pod['metadata']['name']} projects {', '.join(part)}, which virtual nodes do not support"
        )

    def _secret(self, pod: Pod, source: SecretProjection, *, optional: bool) -> dict[str, _File]:
        name, kept = source.get("name", ""), self._kept_for(pod).secrets
        secret = kept.get(name) or self._references.secret(pod["metadata"]["namespace"], name)
        if secret is None and not optional:
            raise MissingError(not_found("secret", name))
        if secret is not None and secret.get("immutable"):
            kept[name] = secret
        data = {} if secret is None else secret_data(secret)
        return _selected(data, source.get("items"), "references non-existent secret key", optional=optional)

    def _config_map(self, pod: Pod, source: ConfigMapProjection | ConfigMapVolumeSource) -> dict[str, _File]:
        name, kept = source.get("name", ""), self._kept_for(pod).config_maps
        config_map = kept.get(name) or self._references.config_map(pod["metadata"]["namespace"], name)
        optional = bool(source.get("optional"))
        if config_map is None and not optional:
            raise MissingError(not_found("configMap", name))
        if config_map is not None and config_map.get("immutable"):
            kept[name] = config_map
        data = {} if config_map is None else config_map_data(config_map)
        return _selected(data, source.get("items"), "configmap references non-existent config key", optional=optional)

    def _kept_for(self, pod: Pod) -> _Kept:
        return self._kept.setdefault(pod["metadata"]["uid"], _Kept({}, {}))

    def _downward(self, pod: Pod, items: Sequence[DownwardAPIVolumeFile]) -> dict[str, _File]:
        files = {}
        for item in items:
            if field := item.get("fieldRef"):
                text = self._fields.field(pod, field["fieldPath"])
            elif resource := item.get("resourceFieldRef"):
                text = self._fields.resource(pod, None, resource)
            else:
                continue
            files[item["path"]] = _File(text.encode(), item.get("mode"))
        return files


def _empty_dir(source: EmptyDirVolumeSource) -> GroupEmptyDir:
    translated: GroupEmptyDir = {}
    if medium := source.get("medium"):
        translated["medium"] = medium
    if limit := source.get("sizeLimit"):
        translated["sizeLimit"] = limit
    return translated


def _default_mode(volume: Volume) -> int:
    source = volume.get("secret") or volume.get("configMap") or volume.get("projected") or volume.get("downwardAPI")
    mode = None if source is None else source.get("defaultMode")
    return _DEFAULT_MODE if mode is None else mode


def _selected(
    data: Mapping[str, bytes], items: list[KeyToPath] | None, missing: str, *, optional: bool
) -> dict[str, _File]:
    """Return all files, or those that the items select. Raises `MissingError` with the message `missing`."""
    if not items:
        return {key: _File(content) for key, content in data.items()}
    files = {}
    for item in items:
        if item["key"] in data:
            files[item["path"]] = _File(data[item["key"]], item.get("mode"))
        elif not optional:
            raise MissingError(f"{missing}: {item['key']}")
    return files


def _normal(files: Mapping[str, _File]) -> dict[str, _File]:
    """Return the files by paths without `.` and repeated slashes. Raises `MissingError` if one is a folder of another."""
    normal = {posixpath.normpath(path): file for path, file in files.items()}
    for path in normal:
        above = posixpath.dirname(path)
        while above:
            if above in normal:
                raise MissingError(
                    f"the file {path} is in {above}, which is a file: their sources have conflicting paths"
                )
            above = posixpath.dirname(above)
    return normal

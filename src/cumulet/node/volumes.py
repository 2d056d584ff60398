"""The volumes of a pod, with the content of their files."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Sequence

from cumulet.common.kubernetes.objects import (
    ConfigMapProjection,
    ConfigMapVolumeSource,
    DownwardAPIVolumeFile,
    KeyToPath,
    Pod,
    SecretProjection,
    ServiceAccountTokenProjection,
    Volume,
)
from cumulet.node.errors import UnsupportedError
from cumulet.node.fields import Fields, resource_field
from cumulet.node.references import Kind, References
from cumulet.node.resource import GroupVolume

#: Returns a service account token for a pod.
TokenOf = Callable[[Pod, ServiceAccountTokenProjection], Awaitable[str]]


class Volumes:
    """Resolves the volumes of pods."""

    def __init__(self, references: References, fields: Fields, token_of: TokenOf) -> None:
        self._references = references
        self._fields = fields
        self._token_of = token_of

    async def of(self, pod: Pod, volume: Volume) -> GroupVolume:
        """Return a volume of the group. Raises `MissingError`, `UnsupportedError`."""
        name = volume["name"]
        if (source := volume.get("emptyDir")) is not None:
            return {"name": name, "emptyDir": {"medium": source["medium"]} if source.get("medium") else {}}
        files = await self._files(pod, volume)
        if files is None:
            raise UnsupportedError(
                f"pod {pod['metadata']['name']} requires volume {name} which is of an unsupported type"
            )
        modes = (
            source.get("defaultMode")
            for source in (
                volume.get("secret"),
                volume.get("configMap"),
                volume.get("projected"),
                volume.get("downwardAPI"),
            )
            if source is not None
        )
        mode = next(modes, None)
        secret = {path: base64.b64encode(content).decode() for path, content in files.items()}
        return {"name": name, "secret": secret, "defaultMode": mode if mode is not None else 420}

    async def _files(self, pod: Pod, volume: Volume) -> dict[str, bytes] | None:
        """Return the content of a volume's files by path, or `None` for a type without files."""
        if source := volume.get("secret"):
            values = self._references.values(
                "secret", pod["metadata"]["namespace"], source["secretName"], source.get("optional")
            )
            return _selected(values, source.get("items"))
        if config_map := volume.get("configMap"):
            return self._projection("configMap", pod, config_map)
        if downward := volume.get("downwardAPI"):
            return self._downward(pod, downward.get("items") or ())
        if projected := volume.get("projected"):
            files: dict[str, bytes] = {}
            for part in projected.get("sources") or ():
                if secret := part.get("secret"):
                    files |= self._projection("secret", pod, secret)
                if map_ := part.get("configMap"):
                    files |= self._projection("configMap", pod, map_)
                if fields := part.get("downwardAPI"):
                    files |= self._downward(pod, fields.get("items") or ())
                if token := part.get("serviceAccountToken"):
                    files[token["path"]] = (await self._token_of(pod, token)).encode()
            return files
        return None

    def _projection(
        self, kind: Kind, pod: Pod, source: ConfigMapProjection | ConfigMapVolumeSource | SecretProjection
    ) -> dict[str, bytes]:
        values = self._references.values(
            kind, pod["metadata"]["namespace"], source.get("name"), source.get("optional")
        )
        return _selected(values, source.get("items"))

    def _downward(self, pod: Pod, items: Sequence[DownwardAPIVolumeFile]) -> dict[str, bytes]:
        files = {}
        for item in items:
            if field := item.get("fieldRef"):
                files[item["path"]] = self._fields.field(pod, field["fieldPath"]).encode()
            elif resource := item.get("resourceFieldRef"):
                named = next(
                    (
                        container
                        for container in pod["spec"]["containers"]
                        if container["name"] == resource.get("containerName")
                    ),
                    pod["spec"]["containers"][0],
                )
                files[item["path"]] = resource_field(named, resource).encode()
        return files


def _selected(values: dict[str, bytes], items: list[KeyToPath] | None) -> dict[str, bytes]:
    if not items:
        return values
    return {item["path"]: values[item["key"]] for item in items if item["key"] in values}

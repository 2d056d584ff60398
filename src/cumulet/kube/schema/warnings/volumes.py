"""Warnings about pod volumes: sources that no longer work, and overlapping paths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.schema.warnings.other_kinds import GONE, claim_spec


class _File(NamedTuple):
    path: str
    source: str

    def __str__(self) -> str:
        return f'"{self.path}" ({self.source})' if self.source else f'"{self.path}"'


_ORDER = (
    "photonPersistentDisk",
    "gitRepo",
    "scaleIO",
    "flocker",
    "storageos",
    "quobyte",
    "glusterfs",
    "ephemeral",
    "cephfs",
    "rbd",
)
_GIT = "deprecated in v1.11, and disabled by default in v1.33+"


def sources(volumes: Iterable[Object], path: str) -> Iterator[str]:
    """Yield the warnings about volume sources."""
    for index, volume in enumerate(volumes):
        for kind in _ORDER:
            if kind not in volume:
                continue
            where = f"{path}[{index}].{'storageOS' if kind == 'storageos' else kind}"
            if kind == "ephemeral":
                template = volume[kind].get("volumeClaimTemplate") or {}
                yield from claim_spec(template.get("spec") or {}, f"{where}.volumeClaimTemplate.spec")
            else:
                yield f"{where}: {_GIT if kind == 'gitRepo' else GONE[kind]}"


def overlaps(volumes: Iterable[Object]) -> Iterator[str]:
    """Yield the warnings about files in a volume with equal or nested paths."""
    for volume in volumes:
        name = volume.get("name", "")
        for kind, label in (
            ("configMap", f'ConfigMap "{(volume.get("configMap") or {}).get("name", "")}"'),
            ("secret", f'Secret "{(volume.get("secret") or {}).get("secretName", "")}"'),
            ("downwardAPI", "DownwardAPI"),
        ):
            files = [_File(item.get("path", ""), "") for item in (volume.get(kind) or {}).get("items") or ()]
            for line in _among(files):
                yield f'volume "{name}" ({label}): overlapping paths: {line}'
        projected = volume.get("projected")
        if projected is None:
            continue
        found: list[_File] = []
        for source in projected.get("sources") or ():
            if not source:
                yield f'volume "{name}" (Projected) has no sources provided'
            found += _files(source)
        for line in _among(found):
            yield f'volume "{name}" (Projected): overlapping paths: {line}'


def _files(source: Object) -> Iterator[_File]:
    for kind, label in (("configMap", "ConfigMap"), ("secret", "Secret"), ("downwardAPI", "DownwardAPI")):
        if (found := source.get(kind)) is not None:
            named = label if kind == "downwardAPI" else f'{label} "{found.get("name", "")}"'
            for item in found.get("items") or ():
                yield _File(item.get("path", ""), named)
            return
    if (token := source.get("serviceAccountToken")) is not None:
        yield _File(token.get("path", ""), "ServiceAccountToken")


def _among(files: Iterable[_File]) -> Iterator[str]:
    seen: list[_File] = []
    for file in files:
        file = file._replace(path=file.path.rstrip("/"))
        if file.path:
            for other in seen:
                one, two = f"{other.path}/", f"{file.path}/"
                if other.path and (one.startswith(two) or two.startswith(one)):
                    yield f"{file} with {other}"
        seen.append(file)

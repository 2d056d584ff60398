"""Validation of pod volumes, with every kind of source."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from cumulet.common.ascii import fold
from cumulet.common.kubernetes.objects import Object
from cumulet.common.kubernetes.quantity import decimal
from cumulet.kube.apimachinery import name_formats
from cumulet.kube.apimachinery.status import Cause
from cumulet.kube.schema.validation.claims import claim_template
from cumulet.kube.schema.validation.containers import pull_policy
from cumulet.kube.schema.validation.field_errors import (
    Causes,
    all_invalid,
    duplicate,
    forbidden,
    invalid,
    required,
    too_long,
    unsupported,
)
from cumulet.kube.schema.validation.paths import descending, no_backsteps
from cumulet.kube.schema.validation.projections import items_to_paths, mode, projected, volume_items

Source = Callable[[Object, str], Causes]

_PARTITION = "must be between 1 and 255, inclusive"
_MORE = "may not specify more than 1 volume type"
_TYPES = (
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)
_INITIATORS = {
    "iqn": re.compile(r"iqn\.[0-9]{4}-[0-9]{2}\.([A-Za-z0-9-.]+)(:[^,;*&$|\s]+)$", re.ASCII),
    "eui": re.compile(r"eui.[A-Za-z0-9]{16}$"),
    "naa": re.compile(r"naa.[A-Za-z0-9]{32}$"),
}
_PAIR = "must be a host:port pair or multiple pairs separated by commas"
_BLOB = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
_MANAGED = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"


def volumes(specs: Iterable[Object], name: str, field: str) -> tuple[dict[str, Object], list[Cause]]:
    """Return the valid volumes of a pod by name, and the causes against the others."""
    good: dict[str, Object] = {}
    causes: list[Cause] = []
    made = {f"{name}-{volume.get('name', '')}" for volume in specs if "ephemeral" in volume} if name else set()
    for index, volume in enumerate(specs):
        where = f"{field}[{index}]"
        wrong = list(_volume(volume, name, where))
        own = volume.get("name", "")
        if not own:
            wrong.append(required(f"{where}.name"))
        else:
            wrong += all_invalid(f"{where}.name", own, name_formats.dns_label(own))
        if own in good:
            wrong.append(duplicate(f"{where}.name", own))
        if wrong:
            causes += wrong
        else:
            good[own] = volume
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName", "")
        if claim in made:
            why = "must not reference a PVC that gets created for an ephemeral volume"
            causes.append(invalid(f"{where}.persistentVolumeClaim.claimName", claim, why))
    return good, causes


def _volume(volume: Object, pod: str, field: str) -> Causes:
    given = [kind for kind in SOURCES if volume.get(kind) is not None]
    if not given:
        yield required(field, "must specify a volume type")
        return
    first = given[0]
    yield from SOURCES[first](volume[first], f"{field}.{_ERROR_NAMES.get(first, first)}")
    name = volume.get("name", "")
    if first == "ephemeral" and pod and name:
        claim = f"{pod}-{name}"
        messages = (f'PVC name "{claim}": {message}' for message in name_formats.dns_subdomain(claim))
        yield from all_invalid(f"{field}.name", name, messages)
    for extra in given[1:]:
        yield forbidden(f"{field}.{_EXTRA_ERROR_NAMES.get(extra, extra)}", _MORE)
    portal = (volume.get("iscsi") or {}).get("targetPortal", "")
    if "initiatorName" in (volume.get("iscsi") or {}) and len(f"{name}:{portal}") > 64:
        why = (
            "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName "
            "is specified."
        )
        yield invalid(f"{field}.name", name, why)


def _needs(*keys: str) -> Source:
    def check(source: Object, field: str) -> Causes:
        return (required(f"{field}.{key}") for key in keys if not source.get(key))

    return check


def _empty(source: Object, field: str) -> Causes:
    if (size := source.get("sizeLimit")) is not None and decimal(size) < 0:
        yield forbidden(f"{field}.sizeLimit", "SizeLimit field must be a valid resource quantity")


def _host_path(source: Object, field: str) -> Causes:
    if not (path := source.get("path", "")):
        yield required(f"{field}.path")
        return
    yield from no_backsteps(path, f"{field}.path")
    if source.get("type", "") not in _TYPES:
        yield unsupported(f"{field}.type", source["type"], _TYPES)


def _git(source: Object, field: str) -> Causes:
    if not source.get("repository"):
        yield required(f"{field}.repository")
    yield from descending(source.get("directory", ""), f"{field}.directory")


def _disk(key: str) -> Source:
    def check(source: Object, field: str) -> Causes:
        if not source.get(key):
            yield required(f"{field}.{key}")
        if not 0 <= source.get("partition", 0) <= 255:
            yield invalid(f"{field}.partition", source["partition"], _PARTITION)

    return check


def _secret(source: Object, field: str) -> Causes:
    if not source.get("secretName"):
        yield required(f"{field}.secretName")
    yield from mode(source, "defaultMode", field)
    yield from items_to_paths(source.get("items") or (), f"{field}.items")


def _config_map(source: Object, field: str) -> Causes:
    if not source.get("name"):
        yield required(f"{field}.name")
    yield from mode(source, "defaultMode", field)
    yield from items_to_paths(source.get("items") or (), f"{field}.items")


def _nfs(source: Object, field: str) -> Causes:
    yield from _needs("server", "path")(source, field)
    if not source.get("path", "").startswith("/"):
        yield invalid(f"{field}.path", source.get("path", ""), "must be an absolute path")


def _iscsi(source: Object, field: str) -> Causes:
    name = source.get("iqn", "")
    yield from _needs("targetPortal", "iqn")(source, field)
    if name:
        yield from _initiator(name, f"{field}.iqn")
    if not 0 <= source.get("lun", 0) <= 255:
        yield invalid(f"{field}.lun", source["lun"], "must be between 0 and 255, inclusive")
    if (source.get("chapAuthDiscovery") or source.get("chapAuthSession")) and "secretRef" not in source:
        yield required(f"{field}.secretRef")
    if (name := source.get("initiatorName")) is not None:
        yield from _initiator(name, f"{field}.initiatorname")


def _initiator(name: str, field: str) -> Causes:
    form = _INITIATORS.get(name[:3])
    if form is None:
        yield invalid(field, name, "must be valid format starting with iqn, eui, or naa")
    elif not (form.search(name) if name.startswith("iqn") else form.match(name)):
        yield invalid(field, name, "must be valid format")


def _quobyte(source: Object, field: str) -> Causes:
    registry = source.get("registry", "")
    if not registry:
        yield required(f"{field}.registry", _PAIR)
    elif len(source.get("tenant", "")) >= 65:
        yield required(f"{field}.tenant", "must be a UUID and may not exceed a length of 64 characters")
    else:
        for pair in registry.split(","):
            if not re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*):[^:\[\]]*", pair):
                yield invalid(f"{field}.registry", registry, _PAIR)
    yield from _needs("volume")(source, field)


def _flocker(source: Object, field: str) -> Causes:
    name, uuid = source.get("datasetName", ""), source.get("datasetUUID", "")
    if not name and not uuid:
        yield required(field, "one of datasetName and datasetUUID is required")
    if name and uuid:
        yield invalid(field, "resource", "datasetName and datasetUUID can not be specified simultaneously")
    if "/" in name:
        yield invalid(f"{field}.datasetName", name, "must not contain '/'")


def _downward(source: Object, field: str) -> Causes:
    yield from mode(source, "defaultMode", field)
    for item in source.get("items") or ():
        yield from volume_items(item, field)


def _fibre_channel(source: Object, field: str) -> Causes:
    names, ids = source.get("targetWWNs") or [], source.get("wwids") or []
    if not names and not ids:
        yield required(f"{field}.targetWWNs", "must specify either targetWWNs or wwids, but not both")
    if names and ids:
        yield invalid(f"{field}.targetWWNs", names, "targetWWNs and wwids can not be specified simultaneously")
    lun = source.get("lun")
    if names and lun is None:
        yield required(f"{field}.lun", "lun is required if targetWWNs is specified")
    elif names and lun is not None and not 0 <= lun <= 255:
        yield invalid(f"{field}.lun", lun, "must be between 0 and 255, inclusive")


def _flex(source: Object, field: str) -> Causes:
    yield from _needs("driver")(source, field)
    for key in sorted(source.get("options") or ()):
        if f".{fold(key.partition('/')[0])}".endswith((".kubernetes.io", ".k8s.io")):
            yield invalid(f"{field}.options[{key}]", key, "kubernetes.io and k8s.io namespaces are reserved")


def _azure_disk(source: Object, field: str) -> Causes:
    yield from _needs("diskName", "diskURI")(source, field)
    caching, kind, uri = source.get("cachingMode"), source.get("kind"), source.get("diskURI", "")
    if caching not in (None, "None", "ReadOnly", "ReadWrite"):
        yield unsupported(f"{field}.cachingMode", caching, ("None", "ReadOnly", "ReadWrite"))
    if kind not in (None, "Dedicated", "Managed", "Shared"):
        yield unsupported(f"{field}.kind", kind, ("Dedicated", "Managed", "Shared"))
    if kind == "Managed" and not uri.startswith("/subscriptions/"):
        yield unsupported(f"{field}.diskURI", uri, (_MANAGED,))
    if kind not in (None, "Managed") and not uri.startswith("https://"):
        yield unsupported(f"{field}.diskURI", uri, (_BLOB,))


def _cinder(source: Object, field: str) -> Causes:
    yield from _needs("volumeID")(source, field)
    yield from _secret_name(source, field)


def _storage_os(source: Object, field: str) -> Causes:
    if not (name := source.get("volumeName", "")):
        yield required(f"{field}.volumeName")
    else:
        yield from all_invalid(f"{field}.volumeName", name, name_formats.dns_label(name))
    if name := source.get("volumeNamespace", ""):
        yield from all_invalid(f"{field}.volumeNamespace", name, name_formats.dns_label(name))
    yield from _secret_name(source, field)


def _secret_name(source: Object, field: str) -> Causes:
    if (reference := source.get("secretRef")) is not None and not reference.get("name"):
        yield required(f"{field}.secretRef.name")


def _csi(source: Object, field: str) -> Causes:
    yield from driver_name(source.get("driver", ""), f"{field}.driver")
    if (reference := source.get("nodePublishSecretRef")) is not None:
        if not (name := reference.get("name", "")):
            yield required(f"{field}.nodePublishSecretRef.name")
        else:
            yield from all_invalid(f"{field}.name", name, name_formats.dns_subdomain(name))


def driver_name(name: str, field: str) -> Causes:
    """Validate the name of a storage driver."""
    if not name:
        yield required(field)
        return
    if len(name) > 63:
        yield too_long(field, 63)
    yield from all_invalid(field, name, name_formats.dns_subdomain(fold(name)))


def _ephemeral(source: Object, field: str) -> Causes:
    if (template := source.get("volumeClaimTemplate")) is None:
        yield required(f"{field}.volumeClaimTemplate")
    else:
        yield from claim_template(template, f"{field}.volumeClaimTemplate")


def _image(source: Object, field: str) -> Causes:
    # A template can leave the image to the controller that creates its pods.
    if field.startswith("spec.volumes") and not source.get("reference"):
        yield required(f"{field}.reference")
    yield from pull_policy(source.get("pullPolicy", ""), f"{field}.pullPolicy")


#: In upstream's order.
SOURCES: dict[str, Source] = {
    "emptyDir": _empty,
    "hostPath": _host_path,
    "gitRepo": _git,
    "gcePersistentDisk": _disk("pdName"),
    "awsElasticBlockStore": _disk("volumeID"),
    "secret": _secret,
    "nfs": _nfs,
    "iscsi": _iscsi,
    "glusterfs": _needs("endpoints", "path"),
    "flocker": _flocker,
    "persistentVolumeClaim": _needs("claimName"),
    "rbd": _needs("monitors", "image"),
    "cinder": _cinder,
    "cephfs": _needs("monitors"),
    "quobyte": _quobyte,
    "downwardAPI": _downward,
    "fc": _fibre_channel,
    "flexVolume": _flex,
    "configMap": _config_map,
    "azureFile": _needs("secretName", "shareName"),
    "vsphereVolume": _needs("volumePath"),
    "photonPersistentDisk": _needs("pdID"),
    "portworxVolume": _needs("volumeID"),
    "azureDisk": _azure_disk,
    "storageos": _storage_os,
    "projected": projected,
    "scaleIO": _needs("gateway", "system", "volumeName"),
    "csi": _csi,
    "ephemeral": _ephemeral,
    "image": _image,
}
#: Sources that upstream's messages call by another name than the field's.
_ERROR_NAMES = {"gcePersistentDisk": "persistentDisk"}
_EXTRA_ERROR_NAMES = {"cephfs": "cephFS", "downwardAPI": "downwarAPI"}

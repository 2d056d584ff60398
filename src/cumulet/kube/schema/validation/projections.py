"""Validation of files in volumes: keys of secrets and config maps, pod fields, tokens, and projected volumes."""

from __future__ import annotations

from collections.abc import Iterable

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery import name_formats
from cumulet.kube.schema.validation.environment import VOLUME_FIELDS, object_field, resource_field
from cumulet.kube.schema.validation.field_errors import Causes, all_invalid, forbidden, invalid, required, unsupported
from cumulet.kube.schema.validation.paths import unreserved
from cumulet.kube.schema.validation.selectors import label_selector
from cumulet.kube.schema.validation.signers import is_kubernetes_signer, signer_name

_MODE = "must be a number between 0 and 0777 (octal), both inclusive"
_CONFLICT = "conflicting duplicate paths"
_KEY_TYPES = ("RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519")
_LONGEST, _KUBERNETES_LONGEST = 91 * 86400, 86400
_PATHS = ("credentialBundlePath", "keyPath", "certificateChainPath")


def mode(source: Object, key: str, field: str) -> Causes:
    """Validate the permissions of a file."""
    if (value := source.get(key)) is not None and not 0 <= value <= 0o777:
        yield invalid(f"{field}.{key}", value, _MODE)


def items_to_paths(items: Iterable[Object], field: str) -> Causes:
    """Validate a mapping of keys to files."""
    for index, item in enumerate(items):
        yield from _item(item, f"{field}[{index}]")


def _item(item: Object, field: str) -> Causes:
    for key in ("key", "path"):
        if not item.get(key):
            yield required(f"{field}.{key}")
    yield from unreserved(item.get("path", ""), f"{field}.path")
    yield from mode(item, "mode", field)


def volume_items(item: Object, field: str) -> Causes:
    """Validate a file that contains a pod field or a container resource."""
    path = item.get("path", "")
    if not path:
        yield required(f"{field}.path")
    yield from unreserved(path, f"{field}.path")
    reference, resource = item.get("fieldRef"), item.get("resourceFieldRef")
    if reference is not None:
        yield from object_field(reference, VOLUME_FIELDS, f"{field}.fieldRef")
        if resource is not None:
            why = "fieldRef and resourceFieldRef can not be specified simultaneously"
            yield invalid(field, "resource", why)
    elif resource is not None:
        yield from resource_field(resource, f"{field}.resourceFieldRef", in_volume=True)
    else:
        yield required(field, "one of fieldRef and resourceFieldRef is required")
    yield from mode(item, "mode", field)


def projected(source: Object, field: str) -> Causes:
    """Validate a projected volume."""
    yield from mode(source, "defaultMode", field)
    taken: set[str] = set()
    for index, part in enumerate(source.get("sources") or ()):
        where = f"{field}.sources[{index}]"
        count = 0
        for kind, check in _PARTS.items():
            if (found := part.get(kind)) is not None:
                count += 1
                yield from check(found, f"{where}.{kind}", field, taken)
        if count > 1:
            yield forbidden(where, "may not specify more than 1 volume type per source")


def _taken(path: str, shown: str, field: str, taken: set[str]) -> Causes:
    if path in taken:
        yield invalid(field, shown, _CONFLICT)
    taken.add(path)


def _keys(source: Object, field: str, whole: str, taken: set[str]) -> Causes:
    name = source.get("name", "")
    if not name:
        yield required(f"{field}.name")
    for index, item in enumerate(source.get("items") or ()):
        yield from _item(item, f"{field}.items[{index}]")
        if path := item.get("path"):
            yield from _taken(path, name, whole, taken)


def _fields(source: Object, field: str, whole: str, taken: set[str]) -> Causes:
    for item in source.get("items") or ():
        yield from volume_items(item, field)
        if path := item.get("path"):
            yield from _taken(path, path, whole, taken)


def _token(source: Object, field: str, whole: str, taken: set[str]) -> Causes:
    seconds, path = source.get("expirationSeconds", 0), source.get("path", "")
    if seconds < 600:
        yield invalid(f"{field}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes")
    if seconds > 1 << 32:
        why = "may not specify a duration larger than 2^32 seconds"
        yield invalid(f"{field}.expirationSeconds", seconds, why)
    if not path:
        yield required(f"{whole}.path")
    else:
        yield from unreserved(path, f"{whole}.path")


def _bundle(source: Object, field: str, whole: str, taken: set[str]) -> Causes:
    name, signer, path = source.get("name"), source.get("signerName"), source.get("path", "")
    selector = source.get("labelSelector")
    if name is not None and signer is not None:
        yield invalid(field, source, "only one of name and signerName may be used")
    elif name is not None:
        if not name:
            yield required(f"{field}.name", "must be a valid object name")
        messages = (
            f"not a valid clustertrustbundlename: {message}"
            for message in name_formats.dns_subdomain(name.rpartition(":")[2])
        )
        yield from all_invalid(f"{field}.name", name, messages)
        if selector is not None:
            yield invalid(f"{field}.labelSelector", selector, "labelSelector must be unset if name is specified")
    elif signer is not None:
        if not signer:
            yield required(f"{field}.signerName", "must be a valid signer name")
        yield from signer_name(signer, f"{field}.signerName")
        yield from label_selector(selector, f"{field}.labelSelector")
    else:
        yield required(field, "either name or signerName must be specified")
    if not path:
        yield required(f"{field}.path")
    yield from unreserved(path, f"{field}.path")
    yield from _taken(path, path, whole, taken)


def _certificate(source: Object, field: str, whole: str, taken: set[str]) -> Causes:
    signer = source.get("signerName", "")
    yield from signer_name(signer, f"{field}.signerName")
    if source.get("keyType", "") not in _KEY_TYPES:
        yield unsupported(f"{field}.keyType", source.get("keyType", ""), _KEY_TYPES, in_order=True)
    if (seconds := source.get("maxExpirationSeconds")) is not None:
        longest = _KUBERNETES_LONGEST if is_kubernetes_signer(signer) else _LONGEST
        why = "if provided, maxExpirationSeconds must be"
        if seconds < 3600:
            yield invalid(f"{field}.maxExpirationSeconds", seconds, f"{why} >= 3600")
        if seconds > longest:
            yield invalid(f"{field}.maxExpirationSeconds", seconds, f"{why} <= {longest}")
    given = [key for key in _PATHS if source.get(key)]
    for key in given:
        yield from unreserved(source[key], f"{field}.{key}")
        yield from _taken(source[key], source[key], whole, taken)
    if not given:
        yield required(field, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath")


_PARTS = {
    "secret": _keys,
    "configMap": _keys,
    "downwardAPI": _fields,
    "serviceAccountToken": _token,
    "clusterTrustBundle": _bundle,
    "podCertificate": _certificate,
}

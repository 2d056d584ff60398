"""Validation of secrets and config maps."""

from __future__ import annotations

import base64
import binascii

import msgspec

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery import name_formats
from cumulet.kube.apimachinery.status import Cause
from cumulet.kube.codec.go_messages import KINDS
from cumulet.kube.schema.validation.field_errors import Causes, all_invalid, forbidden, invalid, required, too_long
from cumulet.kube.schema.validation.metadata import immutable

_LIMIT = 1024 * 1024
_ACCOUNT = "kubernetes.io/service-account.name"
#: The keys that a type requires, and whether their values are JSON.
_NEEDED: dict[str, tuple[tuple[str, ...], bool]] = {
    "kubernetes.io/dockercfg": ((".dockercfg",), True),
    "kubernetes.io/dockerconfigjson": ((".dockerconfigjson",), True),
    "kubernetes.io/tls": (("tls.crt", "tls.key"), False),
}


def secret(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a secret, or an update of one."""
    causes: list[Cause] = []
    if old is not None:
        causes += immutable(obj.get("type", ""), old.get("type", ""), "type")
        causes += _immutable(obj, old, ("data",))
    data = obj.get("data") or {}
    causes += _keys(data, "data")
    if sum(map(len, data.values())) * 3 // 4 > _LIMIT:
        causes.append(too_long("data", _LIMIT))
    return [*causes, *_of_type(obj, data)]


def _of_type(obj: Object, data: Object) -> Causes:
    kind = obj.get("type", "")
    keys, is_json = _NEEDED.get(kind, ((), False))
    for key in keys:
        if key not in data:
            yield required(f"data[{key}]")
        elif is_json and (why := _unreadable(data[key])):
            yield invalid(f"data[{key}]", "<secret contents redacted>", why)
    if kind == "kubernetes.io/service-account-token":
        if not (obj["metadata"].get("annotations") or {}).get(_ACCOUNT):
            yield required(f"metadata.annotations[{_ACCOUNT}]")
    elif kind == "kubernetes.io/basic-auth" and not {"username", "password"} & data.keys():
        yield required("data[username]")
        yield required("data[password]")
    elif kind == "kubernetes.io/ssh-auth" and not data.get("ssh-privatekey"):
        yield required("data[ssh-privatekey]")


def _unreadable(text: str) -> str:
    """Return the reason why a secret's value is not a JSON object, in Go's words where those are simple."""
    try:
        raw = base64.b64decode(text)
    except binascii.Error:
        raw = b""
    if not raw.strip():
        return "unexpected end of JSON input"
    try:
        found = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        first = raw.strip()[:1].decode("utf-8", "replace")
        return f"invalid character '{first}' looking for beginning of value"
    if found is not None and not isinstance(found, dict):
        return f"json: cannot unmarshal {KINDS[type(found)]} into Go value of type map[string]interface {{}}"
    return ""


def config_map(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a config map, or an update of one."""
    causes = [] if old is None else list(_immutable(obj, old, ("data", "binaryData")))
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    for key in sorted(data):
        causes += all_invalid(f"data[{key}]", key, name_formats.config_key(key))
        if key in binary:
            causes.append(invalid(f"data[{key}]", key, "duplicate of key present in binaryData"))
    causes += _keys(binary, "binaryData")
    size = sum(len(value.encode()) for value in data.values()) + sum(map(len, binary.values())) * 3 // 4
    return [*causes, too_long("", _LIMIT)] if size > _LIMIT else causes


def _keys(data: Object, field: str) -> Causes:
    for key in sorted(data):
        yield from all_invalid(f"{field}[{key}]", key, name_formats.config_key(key))


def _immutable(obj: Object, old: Object, fields: tuple[str, ...]) -> Causes:
    if old.get("immutable"):
        if not obj.get("immutable"):
            yield forbidden("immutable", "field is immutable when `immutable` is set")
        for field in fields:
            if (obj.get(field) or {}) != (old.get(field) or {}):
                yield forbidden(field, "field is immutable when `immutable` is set")

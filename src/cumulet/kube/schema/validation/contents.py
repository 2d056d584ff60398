"""Secrets and config maps."""

from __future__ import annotations

import re

from cumulet.kube.schema.validation.causes import KEY, Causes, Object, forbidden, invalid, required
from cumulet.kube.status import Cause

_SECRET_KEYS = {
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


def secret(obj: Object, old: Object | None) -> list[Cause]:
    """What is wrong with a secret, or with its change."""
    data = obj.get("data") or {}
    causes = list(_keys(data, "data"))
    for key in _SECRET_KEYS.get(obj.get("type", ""), ()):
        if key not in data:
            causes.append(required(f"data[{key}]"))
    if sum(len(value) for value in data.values()) * 3 // 4 > 1024 * 1024:
        causes.append(Cause("data", "FieldValueTooLong", "Too long: may not be more than 1048576 bytes"))
    if old is not None:
        if obj.get("type") != old.get("type"):
            causes.append(invalid("type", obj.get("type"), "field is immutable"))
        causes += _immutable(obj, old)
    return causes


def config_map(obj: Object, old: Object | None) -> list[Cause]:
    """What is wrong with a config map, or with its change."""
    causes = [*_keys(obj.get("data") or {}, "data"), *_keys(obj.get("binaryData") or {}, "binaryData")]
    if old is not None:
        causes += _immutable(obj, old)
    return causes


def _keys(data: Object, field: str) -> Causes:
    for key in data:
        if len(key) > 253 or not re.fullmatch(KEY, key) or key in (".", ".."):
            yield invalid(
                f"{field}[{key}]",
                key,
                "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',"
                f"  or 'key-name', regex used for validation is '{KEY}')",
            )


def _immutable(obj: Object, old: Object) -> Causes:
    if old.get("immutable"):
        if not obj.get("immutable"):
            yield forbidden("immutable", "field is immutable when `immutable` is set")
        for field in ("data", "binaryData"):
            if obj.get(field) != old.get(field):
                yield forbidden(field, "field is immutable when `immutable` is set")

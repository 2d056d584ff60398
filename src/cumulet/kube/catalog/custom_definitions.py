"""CustomResourceDefinitions: validation, the fields that acceptance sets, and the rows of a definition."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from cumulet.common import clock
from cumulet.common.ascii import fold
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery import name_formats, regexp
from cumulet.kube.apimachinery.status import Cause
from cumulet.kube.catalog import custom_definition_paths
from cumulet.kube.catalog.resources import Row
from cumulet.kube.custom import rule_checks, structural_schema
from cumulet.kube.custom.kind import Custom
from cumulet.kube.schema.validation.field_errors import all_invalid, forbidden, invalid, required, unsupported
from cumulet.kube.schema.validation.webhooks import client_config

KEY = "customresourcedefinitions.apiextensions.k8s.io"
FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
_DEPTH = 50
_TYPES = ("array", "boolean", "integer", "number", "object", "string")


def check(obj: Object, old: Object | None) -> list[Cause]:
    """Return every error of a definition."""
    spec = obj.get("spec") or {}
    names, group = spec.get("names") or {}, spec.get("group", "")
    causes: list[Cause] = []
    plural, kind = names.get("plural", ""), names.get("kind", "")
    for field, value in (("spec.group", group), ("spec.names.plural", plural), ("spec.names.kind", kind)):
        if not value:
            causes.append(required(field))
    name = obj["metadata"].get("name", "")
    if name != f"{plural}.{group}":
        causes.append(invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    if "." not in group and group:
        causes.append(invalid("spec.group", group, "should be a domain with at least one dot"))
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        causes.append(unsupported("spec.scope", spec.get("scope", ""), ("Cluster", "Namespaced")))
    versions = spec.get("versions") or []
    labels = [version.get("name", "") for version in versions]
    for index, label in enumerate(labels):
        causes += all_invalid(f"spec.versions[{index}].name", label, name_formats.dns_1035(label))
    if len(set(labels)) < len(labels):
        causes.append(invalid("spec.versions", labels, "must contain unique version names"))
    if sum(bool(version.get("storage")) for version in versions) != 1:
        why = "must have exactly one version marked as storage version"
        causes.append(invalid("spec.versions", labels, why))
    causes += _conversion(spec.get("conversion") or {})
    kept = [version.get("schema") for version in ((old or {}).get("spec") or {}).get("versions") or ()]
    for where, part in _parts(versions, "schema", "validation"):
        # Accepted schemas stay valid, even if the limits were different then.
        if part not in kept or part is None:
            causes += _schema(part, f"{where}.openAPIV3Schema")
    for (where, part), version in zip(_parts(versions, "selectableFields"), versions, strict=False):
        causes += custom_definition_paths.selectable(
            part, where, (version.get("schema") or {}).get("openAPIV3Schema")
        )
    for where, part in _parts(versions, "additionalPrinterColumns"):
        causes += custom_definition_paths.columns(part, where)
    if old is not None:
        before = old.get("spec") or {}
        for field in ("group", "scope"):
            if before.get(field) != spec.get(field):
                causes.append(invalid(f"spec.{field}", spec.get(field), "field is immutable"))
        for field in ("kind", "plural"):
            if (before.get("names") or {}).get(field) != names.get(field):
                causes.append(invalid(f"spec.names.{field}", names.get(field), "field is immutable"))
        for index, stored in enumerate((old.get("status") or {}).get("storedVersions") or ()):
            if stored not in labels:
                causes.append(invalid(f"status.storedVersions[{index}]", stored, _STORED.format(stored)))
    return causes


_STORED = (
    "missing from spec.versions; {0} was previously a storage version, and must remain in spec.versions until a storage "
    "migration ensures no data remains persisted in {0} and removes {0} from status.storedVersions"
)


def _conversion(conversion: Object) -> Iterator[Cause]:
    field, webhook = "spec.conversion", conversion.get("webhook") or {}
    strategy = conversion.get("strategy")
    if strategy not in (None, "None", "Webhook"):
        yield unsupported(f"{field}.strategy", strategy, ("None", "Webhook"))
    if strategy != "Webhook":
        for key, shown in (("clientConfig", "webhookClientConfig"), ("conversionReviewVersions",) * 2):
            if webhook.get(key):
                yield forbidden(f"{field}.{shown}", "should not be set when strategy is not set to Webhook")
        return
    if not webhook.get("clientConfig"):
        yield required(f"{field}.webhookClientConfig", "required when strategy is set to Webhook")
    else:
        yield from client_config(webhook["clientConfig"], f"{field}.webhookClientConfig")
    versions = webhook.get("conversionReviewVersions") or []
    if not versions:
        yield required(f"{field}.conversionReviewVersions")
    elif not {"v1", "v1beta1"} & set(versions):
        why = "must include at least one of v1, v1beta1"
        yield invalid(f"{field}.conversionReviewVersions", versions, why)


def _parts(versions: list[Object], key: str, alone: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a part of each version with its path; as upstream, equal parts once and below the spec.

    `alone` is the name of the part there, if it differs.
    """
    parts = [version.get(key) for version in versions]
    if parts and parts[0] and all(part == parts[0] for part in parts):
        yield f"spec.{alone or key}", parts[0]
    else:
        yield from ((f"spec.versions[{index}].{key}", part) for index, part in enumerate(parts))


def _schema(part: Object | None, field: str) -> Iterator[Cause]:
    schema = (part or {}).get("openAPIV3Schema")
    if schema is None:
        yield required(field)
        return
    if schema.get("type") != "object":
        yield invalid(f"{field}.type", schema.get("type", ""), "must be object at the root")
    causes = list(_structural(schema, field, 0))
    yield from causes
    if not causes:
        yield from rule_checks.check(schema, field)


def _structural(schema: object, field: str, depth: int) -> Iterator[Cause]:
    if not isinstance(schema, dict) or depth > _DEPTH:
        yield invalid(field, "", "must be a schema that is not nested too deeply")
        return
    kind = schema.get("type")
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if kind is None and not free:
        yield required(f"{field}.type", "must not be empty for specified object fields")
    elif kind is not None and kind not in _TYPES:
        yield unsupported(f"{field}.type", kind, _TYPES)
    if pattern := schema.get("pattern"):
        try:
            regexp.check(pattern)
        except regexp.PatternError as error:
            yield invalid(f"{field}.pattern", pattern, f"must be a valid regular expression, but isn't: {error}")
    yield from rule_checks.forms(schema, field)
    if schema.get("default") is not None:
        yield from structural_schema.check_default(schema, f"{field}.default")
    properties = schema.get("properties") or {}
    for name, below in properties.items():
        yield from _structural(below, f"{field}.properties[{name}]", depth + 1)
    if isinstance(schema.get("additionalProperties"), dict):
        yield from _structural(schema["additionalProperties"], f"{field}.additionalProperties", depth + 1)
    if kind == "array":
        if schema.get("items") is None:
            yield required(f"{field}.items", "must be specified")
        else:
            yield from _structural(schema["items"], f"{field}.items", depth + 1)


def establish(obj: Object) -> None:
    """Complete an accepted definition, in place: names, the finalizer that protects its objects, conditions."""
    spec = obj["spec"]
    names = spec["names"]
    names.setdefault("singular", fold(names["kind"]))
    names.setdefault("listKind", f"{names['kind']}List")
    conversion = spec.setdefault("conversion", {"strategy": "None"})
    if service := ((conversion.get("webhook") or {}).get("clientConfig") or {}).get("service"):
        service.setdefault("port", 443)
    metadata = obj["metadata"]
    if not metadata.get("deletionTimestamp"):
        metadata["finalizers"] = list(dict.fromkeys([*(metadata.get("finalizers") or ()), FINALIZER]))
    status = obj.setdefault("status", {})
    storage = next(version["name"] for version in spec["versions"] if version.get("storage"))
    status["acceptedNames"] = dict(names)
    status["storedVersions"] = list(dict.fromkeys([*(status.get("storedVersions") or ()), storage]))
    if not any(condition.get("type") == "Established" for condition in status.get("conditions") or ()):
        now = clock.rfc3339()
        status["conditions"] = [
            {
                "type": kind,
                "status": "True",
                "lastTransitionTime": now,
                "reason": reason,
                "message": message,
            }
            for kind, reason, message in (
                ("NamesAccepted", "NoConflicts", "no conflicts found"),
                ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            )
        ]


def rows_of(definition: Object) -> list[Row]:
    """Return a row for each served version, the preferred one first."""
    spec = definition["spec"]
    names = spec["names"]
    served = [version for version in spec["versions"] if version.get("served")]
    rows = []
    group, storage = spec["group"], next(version for version in spec["versions"] if version.get("storage"))
    conversion = spec.get("conversion") or {}
    webhook = msgspec.json.encode(conversion.get("webhook") if conversion.get("strategy") == "Webhook" else None)
    stored = _custom(msgspec.json.encode(storage), group, None, webhook)
    for version in sorted(served, key=lambda version: _priority(version["name"])):
        custom = stored
        if version is not storage:
            custom = _custom(msgspec.json.encode(version), group, stored, webhook)
        row = Row(
            group,
            version["name"],
            names["kind"],
            names["plural"],
            spec["scope"] == "Namespaced",
            tuple(names.get("shortNames") or ()),
            tuple(names.get("categories") or ()),
            custom.subresources,
            custom=custom,
        )
        rows.append(row)
    return rows


@functools.lru_cache(maxsize=512)
def _custom(version: bytes, group: str, storage: Custom | None, webhook: bytes) -> Custom:
    """Cached, as most definitions stay the same when one changes."""
    return Custom(msgspec.json.decode(version), group, storage, msgspec.json.decode(webhook))


def _priority(name: str) -> tuple[int, int, int, str]:
    """Return the sort key of a version (apimachinery, `CompareKubeAwareVersionStrings`).

    Stable versions come before betas and alphas, the newest first.
    """
    match = re.fullmatch(r"v([0-9]{1,9})(?:(alpha|beta)([0-9]{1,9}))?", name)
    if match is None:
        return 3, 0, 0, name
    stage = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return stage, -int(match[1]), -int(match[3] or 0), name

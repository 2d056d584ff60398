"""Validation of deployments, replica sets, stateful sets, daemon sets and replication controllers."""

from __future__ import annotations

from cumulet.common.ascii import is_digits, raised
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery import name_formats
from cumulet.kube.apimachinery.status import Cause
from cumulet.kube.schema.label_selectors import selects
from cumulet.kube.schema.validation.claims import claim_spec
from cumulet.kube.schema.validation.field_errors import (
    Causes,
    all_invalid,
    forbidden,
    invalid,
    required,
    shown,
    unsupported,
)
from cumulet.kube.schema.validation.metadata import annotation_map, immutable, labels
from cumulet.kube.schema.validation.pods import pod_annotations, template
from cumulet.kube.schema.validation.selectors import label_selector

_STATEFUL_MUTABLE = frozenset(
    (
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    )
)
_STATEFUL_WORDS = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)
_UNMATCHED = "`selector` does not match template `labels`"
_RETENTION = ("Retain", "Delete")


def deployment(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a deployment, or an update of one."""
    spec = obj.get("spec") or {}
    causes = [*not_negative(spec, "spec", "replicas"), *_selector_and_template(spec)]
    causes += _strategy(spec.get("strategy") or {})
    names = ("minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds")
    causes += not_negative(spec, "spec", *names)
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None and deadline <= spec.get("minReadySeconds", 0):
        why = "must be greater than minReadySeconds"
        causes.append(invalid("spec.progressDeadlineSeconds", deadline, why))
    return [*causes, *_same_selector(spec, old)]


def replica_set(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a replica set, or an update of one."""
    spec = obj.get("spec") or {}
    causes = [*not_negative(spec, "spec", "replicas", "minReadySeconds"), *_selector_and_template(spec)]
    return [*causes, *_same_selector(spec, old)]


def _same_selector(spec: Object, old: Object | None) -> Causes:
    if old is not None:
        yield from immutable(spec.get("selector"), (old.get("spec") or {}).get("selector"), "spec.selector")


def _selector_and_template(spec: Object) -> Causes:
    selector = spec.get("selector")
    yield from _selector(selector, "deployment")
    if selector is not None and _is_broken(selector):
        yield invalid("spec.selector", selector, "invalid label selector")
        return
    found = spec.get("template") or {}
    if selector != {}:
        yield from _matches(selector, found)
    yield from template(found, "spec.template")
    yield from _runs_always(found.get("spec") or {}, "ReplicaSet")


def _selector(selector: Object | None, word: str) -> Causes:
    if selector is None:
        yield required("spec.selector")
        return
    yield from label_selector(selector, "spec.selector")
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        yield invalid("spec.selector", selector, f"empty selector is invalid for {word}")


def _is_broken(selector: Object) -> bool:
    """Whether a selector is invalid, so that it selects nothing."""
    return bool(list(label_selector(selector, "")))


def _matches(selector: Object | None, body: Object, field: str = "spec.template") -> Causes:
    """Validate that the selector selects the template's labels. Without a selector nothing is selected."""
    given = (body.get("metadata") or {}).get("labels")
    if selector is None or not selects(selector, given or {}):
        yield invalid(f"{field}.metadata.labels", given, _UNMATCHED)


def _runs_always(spec: Object, kind: str) -> Causes:
    policy = spec.get("restartPolicy", "")
    if policy != "Always":
        yield unsupported("spec.template.spec.restartPolicy", policy, ("Always",))
    if spec.get("activeDeadlineSeconds") is not None:
        why = f"activeDeadlineSeconds in {kind} is not Supported"
        yield forbidden("spec.template.spec.activeDeadlineSeconds", why)


def _strategy(strategy: Object) -> Causes:
    kind, rolling = strategy.get("type", ""), strategy.get("rollingUpdate")
    if kind == "Recreate":
        if rolling is not None:
            why = "may not be specified when strategy `type` is 'Recreate'"
            yield forbidden("spec.strategy.rollingUpdate", why)
    elif kind != "RollingUpdate":
        said = {"Type": kind, "RollingUpdate": _struct(rolling, "maxUnavailable", "maxSurge")}
        yield unsupported("spec.strategy", said, ("Recreate", "RollingUpdate"), in_order=True)
    elif rolling is None:
        yield required("spec.strategy.rollingUpdate", "this should be defaulted and never be nil")
    else:
        field, least, most = (
            "spec.strategy.rollingUpdate",
            rolling.get("maxUnavailable", 0),
            rolling.get("maxSurge", 0),
        )
        yield from share(least, f"{field}.maxUnavailable")
        yield from share(most, f"{field}.maxSurge")
        if not _number(least) and not _number(most):
            yield invalid(f"{field}.maxUnavailable", least, "may not be 0 when `maxSurge` is 0")
        yield from at_most_all(least, f"{field}.maxUnavailable")


def _struct(value: Object | None, *names: str) -> Object | None:
    """Return an object as upstream's struct is shown: with only the named JSON fields."""
    return None if value is None else {f"{raised(name[0])}{name[1:]}": value.get(name) for name in names}


def share(value: int | str, field: str) -> Causes:
    """Validate a number of pods, or a percentage."""
    if isinstance(value, str):
        yield from all_invalid(field, value, name_formats.percent(value))
    elif value < 0:
        yield invalid(field, value, name_formats.NEGATIVE)


def at_most_all(value: int | str, field: str) -> Causes:
    """Validate that a percentage is at most 100."""
    if isinstance(value, str) and not name_formats.percent(value) and int(value[:-1]) > 100:
        yield invalid(field, value, "must not be greater than 100%")


def _number(value: int | str) -> int:
    if isinstance(value, str):
        digits = value.removesuffix("%")
        return int(digits) if is_digits(digits) and len(digits) < 19 else 0
    return int(value)


def stateful_set(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a stateful set, or an update of one."""
    spec = obj.get("spec") or {}
    causes = list(_stateful_spec(spec, is_new=old is None))
    if old is not None:
        before = old.get("spec") or {}
        if any(spec.get(key) != before.get(key) for key in (spec.keys() | before.keys()) - _STATEFUL_MUTABLE):
            causes.append(forbidden("spec", _STATEFUL_WORDS))
    return causes


def _stateful_spec(spec: Object, *, is_new: bool) -> Causes:
    if (policy := spec.get("podManagementPolicy", "")) not in ("OrderedReady", "Parallel"):
        yield invalid("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'")
    yield from _stateful_strategy(spec.get("updateStrategy") or {})
    retention = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    for key in ("whenDeleted", "whenScaled"):
        if retention and retention.get(key, "") not in _RETENTION:
            where = f"spec.persistentVolumeClaimRetentionPolicy.{key}"
            yield unsupported(where, retention.get(key, ""), _RETENTION, in_order=True)
    claims = spec.get("volumeClaimTemplates") or []
    if is_new:
        for index, claim in enumerate(claims):
            yield from claim_spec(claim.get("spec") or {}, f"spec.volumeClaimTemplates[{index}].spec")
    yield from not_negative(spec, "spec", "replicas", "minReadySeconds")
    yield from not_negative({"ordinals.start": (spec.get("ordinals") or {}).get("start")}, "spec", "ordinals.start")
    if is_new and (name := spec.get("serviceName")):
        yield from all_invalid("spec.serviceName", name, name_formats.dns_label(name))
    selector, found = spec.get("selector"), spec.get("template") or {}
    yield from _selector(selector, "statefulset")
    if selector is not None and _is_broken(selector):
        yield Cause("spec.selector", "FieldValueInvalid", f"Invalid value: {shown(selector)}")
    else:
        if selector != {}:
            yield from _matches(selector, found)
        metadata = found.get("metadata") or {}
        yield from template(_with_claims(found, claims), "spec.template")
        # Upstream validates these a second time.
        yield from labels(metadata.get("labels"), "spec.template.labels")
        yield from annotation_map(metadata.get("annotations"), "spec.template.annotations")
        yield from pod_annotations(metadata.get("annotations"), found.get("spec") or {}, "spec.template.annotations")
    yield from _runs_always(found.get("spec") or {}, "StatefulSet")


def _with_claims(body: Object, claims: list[Object]) -> Object:
    """Return a template with the volumes of its claims."""
    spec = {key: value for key, value in (body.get("spec") or {}).items() if key not in ("subdomain", "hostname")}
    if claims:
        names = [(claim.get("metadata") or {}).get("name", "") for claim in claims]
        made = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in dict.fromkeys(names)]
        spec["volumes"] = made + [
            volume for volume in spec.get("volumes") or () if volume.get("name", "") not in names
        ]
    return {**body, "spec": spec}


def _stateful_strategy(strategy: Object) -> Causes:
    kind, rolling = strategy.get("type", ""), strategy.get("rollingUpdate")
    field = "spec.updateStrategy"
    if not kind:
        yield required(field)
    elif kind == "OnDelete":
        if rolling is not None:
            said = {"Partition": rolling.get("partition", 0), "MaxUnavailable": rolling.get("maxUnavailable")}
            yield invalid(f"{field}.rollingUpdate", said, "only allowed for updateStrategy 'RollingUpdate'")
    elif kind != "RollingUpdate":
        said = {"Type": kind, "RollingUpdate": _struct(rolling, "partition", "maxUnavailable")}
        yield invalid(field, said, "must be 'RollingUpdate' or 'OnDelete'")
    elif rolling is not None:
        yield from not_negative(rolling, f"{field}.rollingUpdate", "partition")
        if (most := rolling.get("maxUnavailable")) is not None:
            where = f"{field}.rollingUpdate.maxUnavailable"
            yield from share(most, where)
            if not _number(most):
                yield invalid(where, most, "cannot be 0")
            yield from at_most_all(most, where)


def daemon_set(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a daemon set, or an update of one."""
    spec = obj.get("spec") or {}
    return [*_same_selector(spec, old), *_daemon_spec(spec)]


def _daemon_spec(spec: Object) -> Causes:
    selector, found = spec.get("selector"), spec.get("template") or {}
    yield from label_selector(selector, "spec.selector")
    # Without a selector nothing is selected. An empty one selects everything.
    if selector is None or not _is_broken(selector):
        given = (found.get("metadata") or {}).get("labels")
        if selector is None or not selects(selector, given or {}):
            yield invalid("spec.template.metadata.labels", given, _UNMATCHED)
    if selector is not None and not selector.get("matchLabels") and not selector.get("matchExpressions"):
        yield invalid("spec.selector", selector, "empty selector is invalid for daemonset")
    yield from template(found, "spec.template")
    yield from _runs_always(found.get("spec") or {}, "DaemonSet")
    yield from not_negative(spec, "spec", "minReadySeconds")
    strategy = spec.get("updateStrategy") or {}
    kind, rolling = strategy.get("type", ""), strategy.get("rollingUpdate")
    if kind == "RollingUpdate":
        yield from _daemon_rolling(rolling or {}, "spec.updateStrategy.rollingUpdate")
    elif kind != "OnDelete":
        said = {"Type": kind, "RollingUpdate": _struct(rolling, "maxUnavailable", "maxSurge")}
        yield unsupported("spec.updateStrategy", said, ("RollingUpdate", "OnDelete"), in_order=True)
    yield from not_negative(spec, "spec", "revisionHistoryLimit")


def _daemon_rolling(rolling: Object, field: str) -> Causes:
    given = {key: rolling.get(key, 0) for key in ("maxUnavailable", "maxSurge")}
    for check in (share, at_most_all):
        for key, value in given.items():
            yield from check(value, f"{field}.{key}")
    gone, more = (_number(value) != 0 for value in given.values())
    if gone and more:
        yield invalid(f"{field}.maxSurge", given["maxSurge"], "may not be set when maxUnavailable is non-zero")
    elif not gone and not more:
        yield required(f"{field}.maxUnavailable", "cannot be 0 when maxSurge is 0")


def replication_controller(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a replication controller, or an update of one."""
    return list(_controller_spec(obj.get("spec") or {}))


def _controller_spec(spec: Object) -> Causes:
    selector, found = spec.get("selector"), spec.get("template")
    yield from not_negative(spec, "spec", "minReadySeconds")
    if not selector:
        yield required("spec.selector")
    yield from not_negative(spec, "spec", "replicas")
    if found is None:
        yield required("spec.template")
        return
    if selector:
        yield from _matches({"matchLabels": selector}, found)
    yield from template(found, "spec.template")
    yield from _runs_always(found.get("spec") or {}, "ReplicationController")


def pod_template(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a PodTemplate object."""
    return list(template(obj.get("template") or {}, "template"))


def controller_revision(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a controller revision, or an update of one."""
    causes = list(not_negative(obj, "", "revision"))
    if old is not None:
        causes += immutable(obj.get("data"), old.get("data"), "data")
    elif obj.get("data") is None:
        causes.append(required("data", "data is mandatory"))
    return causes


def not_negative(spec: Object, field: str, *names: str) -> Causes:
    """Validate that numbers are not negative."""
    for name in names:
        if (spec.get(name) or 0) < 0:
            yield invalid(f"{field}.{name}" if field else name, spec[name], name_formats.NEGATIVE)

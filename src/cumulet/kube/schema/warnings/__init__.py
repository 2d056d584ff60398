"""The warnings that a server sends when an object is written (`pkg/api/*` and the strategies' warnings).

The input is an object and, on update, the previous one. The output is the texts of `Warning` headers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.name_formats import dns_label
from cumulet.kube.schema.strategy import counts_generations, pod_template
from cumulet.kube.schema.warnings.other_kinds import claim, claim_spec, driver, ingress, secret, volume
from cumulet.kube.schema.warnings.pods import pod_warnings
from cumulet.kube.schema.warnings.services import service

_POD_NAME = "metadata.name: this is used in the Pod's hostname"
_MADE_NAME = "metadata.name: this is used in Pod names and hostnames"
_SURPRISE = "which can result in surprising behavior; a DNS label is recommended"
_NAMED = frozenset(
    (
        ("", "ReplicationController"),
        *(("apps", kind) for kind in ("Deployment", "ReplicaSet")),
        ("batch", "Job"),
        ("batch", "CronJob"),
    )
)
_RULES: dict[tuple[str, str], Callable[[Object, Object | None], Iterator[str]]] = {
    ("", "Service"): service,
    ("", "Secret"): secret,
    ("", "PersistentVolume"): volume,
    ("", "PersistentVolumeClaim"): claim,
    ("networking.k8s.io", "Ingress"): ingress,
    ("storage.k8s.io", "CSIDriver"): driver,
}


def warnings(obj: Object, group: str, kind: str, old: Object | None = None) -> list[str]:
    """Return the warnings for the writer of an object, or of an update from `old`.

    An update has warnings only where it changes the generation. Updates of pods have none, as programs make them.
    """
    if (group, kind) == ("", "Endpoints"):
        return ["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"]
    if (rule := _RULES.get((group, kind))) is not None:
        return list(rule(obj, old))
    template, path = pod_template(obj, group, kind)
    if template is None or (old is not None and not _is_changed(obj, old, group, kind)):
        return []
    return [*(_name(obj, group, kind) if old is None else ()), *pod_warnings(template, path), *_own(obj, group, kind)]


def _is_changed(obj: Object, old: Object, group: str, kind: str) -> bool:
    if (group, kind) == ("", "Pod"):
        return False
    same = obj["metadata"].get("generation") == old["metadata"].get("generation")
    return not (counts_generations(group, kind) and same)


def _name(obj: Object, group: str, kind: str) -> Iterator[str]:
    is_pod = (group, kind) == ("", "Pod")
    if not is_pod and (group, kind) not in _NAMED:
        return
    if messages := dns_label(obj["metadata"].get("name", "")):
        yield f"{_POD_NAME if is_pod else _MADE_NAME}, {_SURPRISE}: [{' '.join(messages)}]"


def _own(obj: Object, group: str, kind: str) -> Iterator[str]:
    if (group, kind) != ("apps", "StatefulSet"):
        return
    spec = obj.get("spec") or {}
    for index, template in enumerate(spec.get("volumeClaimTemplates") or ()):
        yield from claim_spec(template.get("spec") or {}, f"spec.volumeClaimTemplates[{index}]")
    if (spec.get("revisionHistoryLimit") or 0) < 0:
        yield (
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
        )

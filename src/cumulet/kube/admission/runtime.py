"""Plug-in RuntimeClass: the overhead and the scheduling of a pod's runtime (`plugin/pkg/admission/runtimeclass`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.names import unnamed
from cumulet.kube.apimachinery.status import ApiError, forbidden
from cumulet.kube.store import Store

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import PodSpec

_CLASSES = "runtimeclasses.node.k8s.io"
_OTHER = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
_NO_CLASS = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"


class RuntimeClasses:
    """The runtime classes that pods may name."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def complete(self, pod: Object) -> None:
        """Give a new pod the overhead, the node selector and the tolerations of its class, in place.

        Raises `ApiError` 403 where the class does not exist, or the pod contradicts it.
        """
        spec: PodSpec = pod["spec"]
        if spec.get("runtimeClassName") is None:
            return
        runtime_class = self._of(pod)
        if (overhead := (runtime_class.get("overhead") or {}).get("podFixed")) is not None:
            if spec.get("overhead") not in (None, overhead):
                raise _refused(pod, _OTHER)
            spec["overhead"] = dict(overhead)
        scheduling = runtime_class.get("scheduling") or {}
        selector = spec.get("nodeSelector") or {}
        for key, value in (scheduling.get("nodeSelector") or {}).items():
            if selector.setdefault(key, value) != value:
                where = f"runtimeClass.scheduling.nodeSelector[{key}] = {value}"
                raise _refused(pod, f"conflict: {where}; pod.spec.nodeSelector[{key}] = {selector[key]}")
        if selector:
            spec["nodeSelector"] = selector
        tolerations = spec.get("tolerations") or []
        added = [item for item in scheduling.get("tolerations") or () if item not in tolerations]
        if added:
            spec["tolerations"] = [*tolerations, *added]

    def check(self, pod: Object) -> None:
        """Check that a pod has the overhead of its class. Raises `ApiError` 403."""
        spec: PodSpec = pod["spec"]
        if spec.get("overhead") is None and spec.get("runtimeClassName") is None:
            return
        runtime_class = self._of(pod) if spec.get("runtimeClassName") is not None else {}
        overhead = (runtime_class.get("overhead") or {}).get("podFixed")
        if overhead is None and spec.get("overhead") is not None:
            raise _refused(pod, _NO_CLASS)
        if overhead != spec.get("overhead"):
            raise _refused(pod, _OTHER)

    def _of(self, pod: Object) -> Object:
        name = pod["spec"]["runtimeClassName"]
        stored = self._store.get(_CLASSES, "", name)
        if stored is None:
            raise _refused(pod, f'pod rejected: RuntimeClass "{name}" not found')
        return stored.load()


def _refused(pod: Object, why: str) -> ApiError:
    return forbidden("", "pods", unnamed(pod), why)

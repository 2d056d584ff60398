"""Defaults of pods and pod templates."""

from __future__ import annotations

import re

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.quantity import total
from cumulet.kube.schema.defaults.storage import claim_spec
from cumulet.kube.schema.defaults.values import default

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_SHARED = ("cpu", "memory")
_LONGEST = 255
_HOST = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
#: An image reference (distribution's reference grammar).
_REFERENCE = re.compile(
    rf"(?:(?:{_HOST}(?:\.{_HOST})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?/)?{_PART}(?:/{_PART})*"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?P<digest>@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?"
)
#: The defaults of a volume, by the kind of its source.
_SOURCES: dict[str, Object] = {
    "secret": {"defaultMode": 420},
    "configMap": {"defaultMode": 420},
    "projected": {"defaultMode": 420},
    "downwardAPI": {"defaultMode": 420},
    "hostPath": {"type": ""},
    "iscsi": {"iscsiInterface": "default"},
    "rbd": {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"},
    "azureDisk": {"cachingMode": "ReadWrite", "kind": "Shared", "fsType": "ext4", "readOnly": False},
    "scaleIO": {"storageMode": "ThinProvisioned", "fsType": "xfs"},
}


def pod(obj: Object) -> None:
    _addresses(obj.get("status") or {})
    spec = obj.setdefault("spec", {})
    pod_spec(spec)
    default(spec, enableServiceLinks=True)
    # A limit without a request is also the request.
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        resources = container.get("resources") or {}
        if limits := resources.get("limits"):
            resources["requests"] = {**limits, **(resources.get("requests") or {})}
    if spec.get("resources"):
        _whole(spec)
    if spec.get("hostNetwork"):
        for key in ("containers", "initContainers"):
            for container in spec.get(key) or ():
                for port in container.get("ports") or ():
                    if port.get("containerPort"):
                        default(port, hostPort=port["containerPort"])


def _addresses(status: Object) -> None:
    """Make the single address and the first of the list agree; the single address has priority."""
    one, several = status.get("podIP", ""), status.get("podIPs") or []
    if one and (not several or several[0].get("ip") != one):
        status["podIPs"] = [{"ip": one}]
    elif several and not one:
        status["podIP"] = several[0].get("ip", "")


def _whole(spec: Object) -> None:
    """Set the requests of the pod as a whole, where it has limits."""
    resources = spec["resources"]
    limits = resources.get("limits") or {}
    if not limits:
        return
    requests = dict(resources.get("requests") or {})
    for name in _SHARED:
        if name in requests:
            continue
        amounts = [
            container["resources"]["requests"][name]
            for container in spec.get("containers") or ()
            if name in ((container.get("resources") or {}).get("requests") or {})
        ]
        if amounts:
            requests[name] = amounts[0] if len(amounts) == 1 else total(amounts)
    for name, value in limits.items():
        if name in _SHARED or name.startswith("hugepages-"):
            requests.setdefault(name, value)
    if requests:
        resources["requests"] = requests


def pod_template_object(obj: Object) -> None:
    pod_template(obj.setdefault("template", {}))


def pod_template(template: Object) -> None:
    default(template, metadata={})
    pod_spec(template.setdefault("spec", {}))


def pod_spec(spec: Object) -> None:
    default(
        spec,
        restartPolicy="Always",
        terminationGracePeriodSeconds=30,
        dnsPolicy="ClusterFirst",
        securityContext={},
        schedulerName="default-scheduler",
    )
    if account := spec.get("serviceAccountName") or spec.get("serviceAccount"):
        default(spec, serviceAccountName=account)
        spec["serviceAccount"] = spec["serviceAccountName"]
    for name in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(name) or ():
            _container(container)
    for volume in spec.get("volumes") or ():
        _volume(volume)


def _container(container: Object) -> None:
    image = container.get("image") or ""
    default(
        container,
        resources={},
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
        imagePullPolicy="Always" if _is_latest(image) else "IfNotPresent",
    )
    for port in container.get("ports") or ():
        default(port, protocol="TCP")
    for variable in container.get("env") or ():
        source = variable.get("valueFrom") or {}
        if (reference := source.get("fieldRef")) is not None:
            default(reference, apiVersion="v1")
        if (file := source.get("fileKeyRef")) is not None:
            default(file, optional=False)
    for name in _PROBES:
        if (probe := container.get(name)) is not None:
            _probe(probe)
    for name in ("postStart", "preStop"):
        hook = (container.get("lifecycle") or {}).get(name) or {}
        if (http := hook.get("httpGet")) is not None:
            default(http, path="/", scheme="HTTP")


def _probe(probe: Object) -> None:
    default(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
    if (http := probe.get("httpGet")) is not None:
        default(http, path="/", scheme="HTTP")
    if (grpc := probe.get("grpc")) is not None:
        default(grpc, service="")


def _is_latest(image: str) -> bool:
    """Whether the tag is `latest`: stated, or neither tag nor digest is. False for an invalid reference."""
    found = _REFERENCE.fullmatch(image) if len(image) <= _LONGEST else None
    return found is not None and not found["digest"] and found["tag"] in (None, "latest")


def _volume(volume: Object) -> None:
    if not any(key != "name" for key in volume):
        volume["emptyDir"] = {}
    for kind, source in volume.items():
        if kind in _SOURCES and isinstance(source, dict):
            default(source, **_SOURCES[kind])
    for source in (volume.get("projected") or {}).get("sources") or ():
        if (token := source.get("serviceAccountToken")) is not None:
            default(token, expirationSeconds=3600)
        _fields(source.get("downwardAPI"))
    _fields(volume.get("downwardAPI"))
    if (template := (volume.get("ephemeral") or {}).get("volumeClaimTemplate")) is not None:
        claim_spec(template.setdefault("spec", {}))
    if (image := volume.get("image")) is not None:
        latest = _is_latest(image.get("reference") or "")
        default(image, pullPolicy="Always" if latest else "IfNotPresent")


def _fields(source: Object | None) -> None:
    for item in (source or {}).get("items") or ():
        if (reference := item.get("fieldRef")) is not None:
            default(reference, apiVersion="v1")

"""Warnings about claims, volumes, secrets, ingresses and drivers."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cumulet.common.kubernetes.objects import Object
from cumulet.common.kubernetes.quantity import milli
from cumulet.kube.schema.warnings.labels import node_term

_CLASS, _OPTIONS = "volume.beta.kubernetes.io/storage-class", "volume.beta.kubernetes.io/mount-options"
_INGRESS_CLASS = "kubernetes.io/ingress.class"
#: Volume sources that no longer work: the release that deprecated each, and the one that disabled it.
GONE = {
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "flocker": "deprecated in v1.22, non-functional in v1.25+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "quobyte": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}


def is_fraction(value: str) -> bool:
    """Whether an amount is not a whole number, or too large for upstream to compare."""
    return milli(value) % 1000 != 0


def claim(obj: Object, old: Object | None) -> Iterator[str]:
    """Yield the warnings about a claim."""
    if _CLASS in (obj["metadata"].get("annotations") or {}):
        yield f'metadata.annotations[{_CLASS}]: deprecated since v1.8; use "storageClassName" attribute instead'
    yield from claim_spec(obj.get("spec") or {}, "spec")


def claim_spec(spec: Object, path: str) -> Iterator[str]:
    """Yield the warnings about the spec of a claim."""
    for kind in ("requests", "limits"):
        value = ((spec.get("resources") or {}).get(kind) or {}).get("storage", "0")
        if is_fraction(value):
            yield f'{path}.resources.{kind}[storage]: fractional byte value "{value}" is invalid, must be an integer'


def volume(obj: Object, old: Object | None) -> Iterator[str]:
    """Yield the warnings about a volume."""
    spec, annotations = obj.get("spec") or {}, obj["metadata"].get("annotations") or {}
    for key, since, name in ((_CLASS, "v1.8", "storageClassName"), (_OPTIONS, "v1.31", "mountOptions")):
        if key in annotations:
            yield f'metadata.annotations[{key}]: deprecated since {since}; use "{name}" attribute instead'
    if spec.get("persistentVolumeReclaimPolicy") == "Recycle":
        yield (
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended "
            "approach is to use dynamic provisioning."
        )
    required = (spec.get("nodeAffinity") or {}).get("required") or {}
    for index, term in enumerate(required.get("nodeSelectorTerms") or ()):
        yield from node_term(term, f"spec.nodeAffinity.required.nodeSelectorTerms[{index}]")
    for kind in ("cephfs", "photonPersistentDisk", "scaleIO", "storageos", "glusterfs", "rbd"):
        if kind in spec:
            yield f"spec.{'storageOS' if kind == 'storageos' else kind}: {GONE[kind]}"


def secret(obj: Object, old: Object | None) -> Iterator[str]:
    """Yield the warnings about a TLS secret with an invalid certificate."""
    if obj.get("type") != "kubernetes.io/tls":
        return
    data = obj.get("data") or {}
    try:
        certificate, key = (base64.b64decode(data.get(name, "")) for name in ("tls.crt", "tls.key"))
    except binascii.Error:
        return
    if b"-----BEGIN" not in certificate:
        yield "tls: failed to find any PEM data in certificate input"
        return
    if b"-----BEGIN CERTIFICATE-----" not in certificate:
        yield "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched"
        return
    try:
        found = x509.load_pem_x509_certificate(certificate)
    except ValueError:
        yield "x509: malformed certificate"
        return
    if b"-----BEGIN" not in key:
        yield "tls: failed to find any PEM data in key input"
        return
    try:
        private = load_pem_private_key(key, None)
    except (ValueError, TypeError):
        yield "tls: failed to parse private key"
        return
    if private.public_key() != found.public_key():
        yield "tls: private key does not match public key"


def ingress(obj: Object, old: Object | None) -> Iterator[str]:
    """Yield the warnings about an ingress."""
    if old is None and _INGRESS_CLASS in (obj["metadata"].get("annotations") or {}):
        yield f"annotation \"{_INGRESS_CLASS}\" is deprecated, please use 'spec.ingressClassName' instead"


def driver(obj: Object, old: Object | None) -> Iterator[str]:
    """Yield the warnings about a CSI driver."""
    spec = obj.get("spec") or {}
    if spec.get("tokenRequests") and spec.get("serviceAccountTokenInSecrets") is None:
        yield (
            "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent "
            "possible logging of tokens in volume attributes"
        )

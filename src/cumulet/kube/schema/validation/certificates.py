"""Validation of certificate signing requests."""

from __future__ import annotations

import base64
import binascii

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.status import Cause
from cumulet.kube.schema.validation.field_errors import Causes, as_json, forbidden, invalid, required, unsupported
from cumulet.kube.schema.validation.signers import signer_name

_USAGES = [
    "signing",
    "digital signature",
    "content commitment",
    "key encipherment",
    "key agreement",
    "data encipherment",
    "cert sign",
    "crl sign",
    "encipher only",
    "decipher only",
    "any",
    "server auth",
    "client auth",
    "code signing",
    "email protection",
    "s/mime",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "timestamping",
    "ocsp signing",
    "microsoft sgc",
    "netscape sgc",
]
_SHORTEST = 600
_LEGACY = "kubernetes.io/legacy-unknown"


def certificate_request(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a request, or an update of one."""
    spec = obj.get("spec") or {}
    if old is not None:
        return [] if spec == old.get("spec") else [invalid("spec", as_json(spec), "field is immutable")]
    causes = list(_request(spec.get("request")))
    usages = spec.get("usages") or []
    if not usages:
        causes.append(required("spec.usages"))
    for index, usage in enumerate(usages):
        if usage not in _USAGES:
            causes.append(unsupported(f"spec.usages[{index}]", usage, tuple(_USAGES)))
    causes += signer_name(spec.get("signerName") or "", "spec.signerName")
    if spec.get("signerName") == _LEGACY:
        causes.append(
            invalid("spec.signerName", _LEGACY, "the legacy signerName is not allowed via this API version")
        )
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < _SHORTEST:
        causes.append(
            invalid(
                "spec.expirationSeconds", seconds, "may not specify a duration less than 600 seconds (10 minutes)"
            )
        )
    return causes


def _request(text: str | None) -> Causes:
    try:
        found = x509.load_pem_x509_csr(base64.b64decode(text or ""))
        if not found.is_signature_valid:
            raise ValueError("the signature is not that of its key")
    except (ValueError, binascii.Error, UnsupportedAlgorithm):
        yield invalid("spec.request", text, "PEM block type must be CERTIFICATE REQUEST")


def decision(obj: Object, old: Object) -> list[Cause]:
    """Validate an approval or denial, or a change of another condition."""
    conditions = (obj.get("status") or {}).get("conditions") or []
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        where, kind = f"status.conditions[{index}]", condition.get("type", "")
        if not kind:
            causes.append(required(f"{where}.type"))
        if kind in ("Approved", "Denied", "Failed") and condition.get("status") != "True":
            causes.append(unsupported(f"{where}.status", condition.get("status", ""), ("True",)))
        if kind in seen:
            causes.append(Cause(f"{where}.type", "FieldValueDuplicate", f'Duplicate value: "{kind}"'))
        seen.add(kind)
    if {"Approved", "Denied"} <= seen:
        causes.append(invalid("status.conditions", "Denied", "Approved and Denied conditions are mutually exclusive"))
    for condition in (old.get("status") or {}).get("conditions") or ():
        if condition.get("type") in ("Approved", "Denied", "Failed") and condition["type"] not in seen:
            causes.append(
                forbidden(
                    "status.conditions", f"updates may not remove a condition of type {as_json(condition['type'])}"
                )
            )
    before = (old.get("status") or {}).get("certificate")
    if before and (obj.get("status") or {}).get("certificate") != before:
        causes.append(forbidden("status.certificate", "updates may not set certificate content twice"))
    return causes

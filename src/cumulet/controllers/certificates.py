"""Certificate signing requests: those of nodes are approved, those that are approved signed, old ones deleted.

Follows `pkg/controller/certificates`. The key is that of the installation's own authority; where this room does not have it,
as with a cluster that is not ours, requests are left to whoever has.
"""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from cumulet.common import clock
from cumulet.common.kubernetes import KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import SIGNINGREQUESTS
from cumulet.common.tls import Authority
from cumulet.controllers.controller import Context, Key, Object, key_of
from cumulet.controllers.pods import condition_of

_CLIENT = "kubernetes.io/kube-apiserver-client"
_NODE_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
_NODE_SERVING = "kubernetes.io/kubelet-serving"
_LEGACY = "kubernetes.io/legacy-unknown"
_SIGNERS = (_CLIENT, _NODE_CLIENT, _NODE_SERVING, _LEGACY)
_COMMON = {"digital signature", "key encipherment"}
_USAGES = {
    _CLIENT: {*_COMMON, "client auth"},
    _NODE_CLIENT: {*_COMMON, "client auth"},
    _NODE_SERVING: {*_COMMON, "server auth"},
}
_YEAR, _LEAST = 365 * 24 * 3600, 600
#: How long requests are kept: decided ones, and those that nobody decides on.
_DECIDED, _PENDING = timedelta(hours=1), timedelta(hours=24)
_REVIEW = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


class CertificateController:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._authority = _authority(context)
        self._requests = context.informer(SIGNINGREQUESTS)
        self._requests.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))

    async def reconcile(self, key: Key) -> None:
        """One step of a request."""
        request = self._requests.get(key[1])
        if request is None or request["metadata"].get("deletionTimestamp"):
            return
        if await self._clean(key, request):
            return
        decided = any(condition_of(request, kind) for kind in ("Approved", "Denied", "Failed"))
        try:
            if not decided and request["spec"]["signerName"] == _NODE_CLIENT:
                await self._approve(request)
            elif (
                condition_of(request, "Approved")
                and not condition_of(request, "Failed")
                and not (request.get("status") or {}).get("certificate")
                and request["spec"]["signerName"] in _SIGNERS
                and self._authority is not None
            ):
                await self._sign(request, self._authority)
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise

    async def _clean(self, key: Key, request: Object) -> bool:
        moments = [
            clock.parse(item.get("lastUpdateTime") or request["metadata"]["creationTimestamp"])
            for item in (request.get("status") or {}).get("conditions") or ()
        ]
        limit = (
            max(moments) + _DECIDED if moments else clock.parse(request["metadata"]["creationTimestamp"]) + _PENDING
        )
        left = (limit - clock.now()).total_seconds()
        if left > 0:
            self.queue.add_after(key, left)
            return False
        try:
            await self._client.delete(SIGNINGREQUESTS, key[1], uid=request["metadata"]["uid"])
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise
        return True

    async def _approve(self, request: Object) -> None:
        """A node's request for its client certificate, where whoever asks may ask for that."""
        spec = request["spec"]
        csr = _load(spec)
        if csr is None or _fault(_NODE_CLIENT, csr, spec["usages"]) is not None:
            return
        kinds = [("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.")]
        if spec.get("username") == _name(csr, NameOID.COMMON_NAME)[0]:
            kinds.insert(
                0, ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview.")
            )
        for kind, message in kinds:
            if await self._may(spec, kind):
                approved = _condition("Approved", "AutoApproved", message)
                await self._write(request, {"conditions": [approved]}, "approval")
                return

    async def _may(self, spec: Object, kind: str) -> bool:
        attributes = {
            "group": "certificates.k8s.io",
            "version": "*",
            "resource": "certificatesigningrequests",
            "subresource": kind,
            "verb": "create",
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": spec.get("username"),
                "uid": spec.get("uid"),
                "groups": spec.get("groups"),
                "extra": spec.get("extra"),
                "resourceAttributes": attributes,
            },
        }
        answer = await self._client.request("POST", _REVIEW, body=review)
        return bool((answer.get("status") or {}).get("allowed"))

    async def _sign(self, request: Object, authority: Authority) -> None:
        spec = request["spec"]
        csr = _load(spec)
        fault = "the request cannot be read" if csr is None else _fault(spec["signerName"], csr, spec["usages"])
        if csr is None or fault is not None:
            failed = _condition("Failed", "SignerValidationFailure", fault or "")
            await self._write(request, {"conditions": [failed]}, "status")
            return
        seconds = min(max(spec.get("expirationSeconds", _YEAR), _LEAST), _YEAR)
        certificate = authority.sign(csr, spec["usages"], seconds)
        await self._write(request, {"certificate": base64.b64encode(certificate).decode()}, "status")

    async def _write(self, request: Object, status: Object, subresource: str) -> None:
        old = request.get("status") or {}
        conditions = [*(old.get("conditions") or ()), *status.pop("conditions", ())]
        changed = {**request, "status": {**old, **status, "conditions": conditions}}
        await self._client.update(SIGNINGREQUESTS, changed, subresource)


def _authority(context: Context) -> Authority | None:
    file = context.ca_file
    if file is None or not file.exists() or not file.with_suffix(".key").exists():
        return None
    return Authority.open(file, file.with_suffix(".key"))


def _load(spec: Object) -> x509.CertificateSigningRequest | None:
    try:
        csr = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
        return csr if csr.is_signature_valid else None
    except ValueError:
        return None


def _fault(signer: str, csr: x509.CertificateSigningRequest, usages: list[str]) -> str | None:
    """Why a signer does not sign that (`pkg/apis/certificates/v1/helpers.go`)."""
    wanted = set(usages)
    if signer == _LEGACY:
        return None
    if not wanted <= _USAGES[signer] or not wanted & {"client auth", "server auth"}:
        return f"usages did not match {sorted(_USAGES[signer])}"
    if signer == _CLIENT:
        return None
    if _name(csr, NameOID.ORGANIZATION_NAME) != ["system:nodes"]:
        return "subject organization is not system:nodes"
    if not "".join(_name(csr, NameOID.COMMON_NAME)).startswith("system:node:"):
        return "subject common name does not begin with system:node:"
    names = _alternatives(csr)
    if signer == _NODE_CLIENT:
        return "subject alternative names are not allowed" if names else None
    if not any(isinstance(name, x509.DNSName | x509.IPAddress) for name in names):
        return "DNS or IP subjectAltName is required"
    if not all(isinstance(name, x509.DNSName | x509.IPAddress) for name in names):
        return "only DNS and IP subjectAltNames are allowed"
    return None


def _name(csr: x509.CertificateSigningRequest, oid: Any) -> list[str]:
    return [str(attribute.value) for attribute in csr.subject.get_attributes_for_oid(oid)]


def _alternatives(csr: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    try:
        return list(csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def _condition(kind: str, reason: str, message: str) -> Object:
    now = clock.rfc3339()
    times = {"lastUpdateTime": now, "lastTransitionTime": now}
    return {"type": kind, "status": "True", "reason": reason, "message": message, **times}

"""Certificate signing requests: those of nodes are approved, those that are approved signed, old ones deleted.

Follows `pkg/controller/certificates`. In a cluster that is not ours nothing is signed: it has signers of its own.
"""

from __future__ import annotations

import base64
from datetime import timedelta

from cryptography import x509
from cryptography.x509.oid import NameOID

from cumulet.common import clock
from cumulet.common.kubernetes import KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import NODES, SIGNINGREQUESTS
from cumulet.controllers.controller import Context, Key, Object, key_of
from cumulet.controllers.pods import condition_of
from cumulet.controllers.signers import NODE_CLIENT, NODE_SERVING, Signers, attributes, fault, is_signer, node_name

_YEAR, _LEAST = 365 * 24 * 3600, 600
#: How long requests are kept: decided ones, and those that nobody decides on.
_DECIDED, _PENDING = timedelta(hours=1), timedelta(hours=24)
_REVIEW = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


class CertificateController:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._signers = context.signers
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
            if not decided and request["spec"]["signerName"] == NODE_CLIENT:
                await self._approve(request)
            elif (
                condition_of(request, "Approved")
                and not condition_of(request, "Failed")
                and not (request.get("status") or {}).get("certificate")
                and is_signer(request["spec"]["signerName"])
                and self._signers is not None
            ):
                await self._sign(request, self._signers)
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
        if csr is None or fault(NODE_CLIENT, csr, spec["usages"]) is not None:
            return
        kinds = [("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.")]
        if spec.get("username") == attributes(csr, NameOID.COMMON_NAME)[0]:
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

    async def _sign(self, request: Object, signers: Signers) -> None:
        spec = request["spec"]
        signer, csr = spec["signerName"], _load(spec)
        why = "the request cannot be read" if csr is None else fault(signer, csr, spec["usages"])
        if csr is not None and why is None and signer == NODE_SERVING:
            why = signers.fault_of_names(csr, await self._node(node_name(csr)))
        if csr is None or why is not None:
            failed = _condition("Failed", "SignerValidationFailure", why or "")
            await self._write(request, {"conditions": [failed]}, "status")
            return
        seconds = min(max(spec.get("expirationSeconds", _YEAR), _LEAST), _YEAR)
        certificate = signers.authority(signer).sign(csr, seconds)
        await self._write(request, {"certificate": base64.b64encode(certificate).decode()}, "status")

    async def _node(self, name: str) -> Object | None:
        """Read a node, or return `None` if it does not exist."""
        try:
            return await self._client.get(NODES, name)
        except KubernetesError as error:
            if error.code != 404:
                raise
            return None

    async def _write(self, request: Object, status: Object, subresource: str) -> None:
        old = request.get("status") or {}
        conditions = [*(old.get("conditions") or ()), *status.pop("conditions", ())]
        changed = {**request, "status": {**old, **status, "conditions": conditions}}
        await self._client.update(SIGNINGREQUESTS, changed, subresource)


def _load(spec: Object) -> x509.CertificateSigningRequest | None:
    try:
        csr = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
        return csr if csr.is_signature_valid else None
    except ValueError:
        return None


def _condition(kind: str, reason: str, message: str) -> Object:
    now = clock.rfc3339()
    times = {"lastUpdateTime": now, "lastTransitionTime": now}
    return {"type": kind, "status": "True", "reason": reason, "message": message, **times}

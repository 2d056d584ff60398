"""Approves the certificate signing requests of nodes, signs approved requests, and deletes old ones.

Follows `pkg/controller/certificates`. In the cluster of another installation, which has its own signers, it signs nothing.
"""

from __future__ import annotations

import base64
from datetime import timedelta

from cryptography import x509
from cryptography.x509.oid import NameOID

from cumulet.common import clock
from cumulet.common.kubernetes import KubernetesError, WorkQueue, suppress_stale
from cumulet.common.kubernetes.client import NODES, SIGNINGREQUESTS
from cumulet.common.kubernetes.objects import (
    CertificateSigningRequest,
    CertificateSigningRequestCondition,
    CertificateSigningRequestSpec,
    CertificateSigningRequestStatus,
    Node,
    ResourceAttributes,
    SubjectAccessReview,
)
from cumulet.controllers.conditions import condition_of
from cumulet.controllers.controller import Context, Key, key_of
from cumulet.controllers.signers import NODE_CLIENT, NODE_SERVING, Signers, attributes, fault, is_signer, node_name

_YEAR, _LEAST = 365 * 24 * 3600, 600
#: The time for which requests are kept: decided ones, and pending ones.
_DECIDED, _PENDING = timedelta(hours=1), timedelta(hours=24)
_REVIEW = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


class CertificateController:
    """The controller of certificate signing requests."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._signers = context.signers
        self._requests = context.informer(SIGNINGREQUESTS)
        self._requests.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))

    async def reconcile(self, key: Key) -> None:
        """Take one step of a request."""
        request = self._requests.get(key[1])
        if request is None or request["metadata"].get("deletionTimestamp"):
            return
        if await self._clean(key, request):
            return
        decided = any(condition_of(request, kind) is not None for kind in ("Approved", "Denied", "Failed"))
        with suppress_stale():
            if not decided and request["spec"]["signerName"] == NODE_CLIENT:
                await self._approve(request)
            elif (
                condition_of(request, "Approved") is not None
                and condition_of(request, "Failed") is None
                and not (request.get("status") or {}).get("certificate")
                and is_signer(request["spec"]["signerName"])
                and self._signers is not None
            ):
                await self._sign(request, self._signers)

    async def _clean(self, key: Key, request: CertificateSigningRequest) -> bool:
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
        with suppress_stale():
            await self._client.delete(SIGNINGREQUESTS, key[1], uid=request["metadata"]["uid"])
        return True

    async def _approve(self, request: CertificateSigningRequest) -> None:
        """Approve the request of a node for its client certificate, if its user is authorized for that."""
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
            if await self._is_authorized(spec, kind):
                await self._add_condition(request, "Approved", "AutoApproved", message, "approval")
                return

    async def _is_authorized(self, spec: CertificateSigningRequestSpec, kind: str) -> bool:
        attributes: ResourceAttributes = {
            "group": "certificates.k8s.io",
            "version": "*",
            "resource": "certificatesigningrequests",
            "subresource": kind,
            "verb": "create",
        }
        review: SubjectAccessReview = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": spec.get("username", ""),
                "uid": spec.get("uid", ""),
                "groups": spec.get("groups", []),
                "extra": spec.get("extra", {}),
                "resourceAttributes": attributes,
            },
        }
        answer: SubjectAccessReview = await self._client.request("POST", _REVIEW, body=review)
        return (answer.get("status") or {}).get("allowed", False)

    async def _sign(self, request: CertificateSigningRequest, signers: Signers) -> None:
        spec = request["spec"]
        signer, csr = spec["signerName"], _load(spec)
        reason = "the request cannot be read" if csr is None else fault(signer, csr, spec["usages"])
        if csr is not None and reason is None and signer == NODE_SERVING:
            reason = signers.fault_of_names(csr, await self._node(node_name(csr)))
        if csr is None or reason is not None:
            await self._add_condition(request, "Failed", "SignerValidationFailure", reason or "", "status")
            return
        seconds = min(max(spec.get("expirationSeconds", _YEAR), _LEAST), _YEAR)
        certificate = signers.authority(signer).sign(csr, seconds)
        status: CertificateSigningRequestStatus = {**(request.get("status") or {})}
        status["certificate"] = base64.b64encode(certificate).decode()
        await self._client.update_status(SIGNINGREQUESTS, request, status)

    async def _node(self, name: str) -> Node | None:
        """Read a node, or return `None` if it does not exist."""
        try:
            return await self._client.get(NODES, name)
        except KubernetesError as error:
            if error.code != 404:
                raise
            return None

    async def _add_condition(
        self, request: CertificateSigningRequest, kind: str, reason: str, message: str, subresource: str
    ) -> None:
        now = clock.rfc3339()
        condition: CertificateSigningRequestCondition = {
            "type": kind,
            "status": "True",
            "reason": reason,
            "message": message,
            "lastUpdateTime": now,
            "lastTransitionTime": now,
        }
        old = request.get("status") or {}
        changed: CertificateSigningRequest = {
            **request,
            "status": {**old, "conditions": [*(old.get("conditions") or ()), condition]},
        }
        await self._client.update(SIGNINGREQUESTS, changed, subresource)


def _load(spec: CertificateSigningRequestSpec) -> x509.CertificateSigningRequest | None:
    try:
        csr = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
        return csr if csr.is_signature_valid else None
    except ValueError:
        return None

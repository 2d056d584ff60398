"""Plug-ins CertificateApproval, CertificateSigning and CertificateSubjectRestriction, and the requesting user."""

from __future__ import annotations

import base64
import binascii

from cryptography import x509
from cryptography.x509.oid import NameOID

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.access.attributes import Attributes
from cumulet.kube.access.authorization import Authorizer
from cumulet.kube.access.users import User, user_info
from cumulet.kube.apimachinery.names import unnamed
from cumulet.kube.apimachinery.status import forbidden
from cumulet.kube.store import Store

KEY = "certificatesigningrequests.certificates.k8s.io"
_GROUP, _PLURAL = "certificates.k8s.io", "certificatesigningrequests"
_CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"


class CertificateRequests:
    """Checks and completes certificate signing requests."""

    def __init__(self, store: Store) -> None:
        self._authorizer = Authorizer(store)

    def admit(self, obj: Object, user: User) -> None:
        """Write the requesting user into the spec, in place. Raises `ApiError` 403."""
        spec = obj.setdefault("spec", {})
        for key in ("username", "uid", "groups", "extra"):
            spec.pop(key, None)
        spec |= user_info(user)
        if spec.get("signerName") == _CLIENT_SIGNER and "system:masters" in _organizations(spec.get("request") or ""):
            name = obj["metadata"].get("name", "")
            raise forbidden(
                _GROUP, _PLURAL, name, f"use of {_CLIENT_SIGNER} signer with system:masters group is not allowed"
            )

    def admit_update(self, subresource: str, obj: Object, old: Object, user: User) -> None:
        """Require the right to `approve` or `sign` for the signer. Raises `ApiError` 403."""
        if subresource == "approval":
            self._demand("approve", obj, user)
        elif subresource == "status":
            before = (old.get("status") or {}).get("certificate")
            if (obj.get("status") or {}).get("certificate") != before:
                self._demand("sign", obj, user)

    def _demand(self, verb: str, obj: Object, user: User) -> None:
        signer = obj["spec"].get("signerName", "")
        names = (signer, f"{signer.partition('/')[0]}/*")
        if not any(self._authorizer.allows(user, Attributes(verb, _GROUP, "signers", name=name)) for name in names):
            why = f'user not permitted to {verb} requests with signerName "{signer}"'
            raise forbidden(_GROUP, _PLURAL, unnamed(obj), why)


def _organizations(request: str) -> list[str]:
    try:
        csr = x509.load_pem_x509_csr(base64.b64decode(request))
        return [str(item.value) for item in csr.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    except (ValueError, binascii.Error):
        return []  # validation refuses the request

"""Certificate signing requests: the requesting user, and the rights to approve and to sign."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.kube.conftest import Program, Server, programs

PATH = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
CLIENT = "kubernetes.io/kube-apiserver-client"


def signing_request(organization: str = "team") -> str:
    """A request, PEM in base64."""
    names = [
        x509.NameAttribute(NameOID.COMMON_NAME, "ann"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
    ]
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names)).sign(key, hashes.SHA256())
    return base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()


def body(**spec: Any) -> dict[str, Any]:
    made = {"request": signing_request(), "signerName": CLIENT, "usages": ["client auth"], **spec}
    return {"metadata": {"name": f"r{uuid.uuid4().hex[:8]}"}, "spec": made}


def test_the_requesting_user_is_recorded(server: Server) -> None:
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "csr-ann"}
    binding = {"metadata": {"name": "csr-ann"}, "roleRef": role, "subjects": [subject]}
    server.make("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    made = server.call(
        "POST", PATH, body(username="root", groups=["system:masters"]), impersonate_user="csr-ann"
    ).body
    assert made["spec"]["username"] == "csr-ann"
    assert made["spec"]["groups"] == ["system:authenticated"]
    changed = {**made, "spec": {**made["spec"], "username": "root"}}
    assert server.call("PUT", f"{PATH}/{made['metadata']['name']}", changed).status == 422


@pytest.mark.parametrize("kubectl", programs("kubectl"), indirect=True)
def test_approval_and_denial(kubectl: Program) -> None:
    for verb, word in (("approve", "Approved"), ("deny", "Denied")):
        made = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", **body()}
        name = made["metadata"]["name"]
        kubectl("create", "-f", "-", stdin=json.dumps(made))
        assert "Pending" in kubectl("get", "csr", name)
        assert word.lower() in kubectl("certificate", verb, name)
        assert word in kubectl("get", "csr", name)
        (condition,) = [
            item for item in kubectl.json("get", "csr", name)["status"]["conditions"] if item["type"] == word
        ]
        assert (condition["type"], condition["status"]) == (word, "True")
        assert condition["lastTransitionTime"]


def test_approving_and_signing_are_rights(server: Server) -> None:
    made = server.make(PATH, body(signerName="example.com/signer"))
    path = f"{PATH}/{made['metadata']['name']}"
    rules = [
        {
            "apiGroups": ["certificates.k8s.io"],
            "resources": ["*/approval", "certificatesigningrequests/status"],
            "verbs": ["*"],
        },
        {
            "apiGroups": ["certificates.k8s.io"],
            "resources": ["signers"],
            "resourceNames": ["other.com/*"],
            "verbs": ["*"],
        },
    ]
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    server.make(f"{rbac}/clusterroles", {"metadata": {"name": "csr-bob"}, "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "csr-bob"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "csr-bob"}
    server.make(
        f"{rbac}/clusterrolebindings", {"metadata": {"name": "csr-bob"}, "roleRef": role, "subjects": [subject]}
    )
    approved = {**made, "status": {"conditions": [{"type": "Approved", "status": "True"}]}}
    answer = server.call("PUT", f"{path}/approval", approved, impersonate_user="csr-bob")
    assert answer.status == 403
    assert 'user not permitted to approve requests with signerName "example.com/signer"' in answer.body["message"]
    assert server.call("PUT", f"{path}/approval", approved).status == 200
    # A write of the status leaves the approval alone, and an approval the certificate.
    current = server.call("GET", path).body
    signed = {**current, "status": {"certificate": base64.b64encode(b"certificate").decode()}}
    assert server.call("PUT", f"{path}/status", signed, impersonate_user="csr-bob").status == 403
    answer = server.call("PUT", f"{path}/status", signed)
    assert answer.status == 200, answer.body
    assert answer.body["status"]["conditions"][0]["type"] == "Approved"
    both = [{"type": kind, "status": "True"} for kind in ("Approved", "Denied")]
    answer = server.call("PUT", f"{path}/approval", {**answer.body, "status": {"conditions": both}})
    assert "mutually exclusive" in answer.body["message"]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"request": base64.b64encode(b"no").decode()}, "spec.request"),
        ({"usages": []}, "spec.usages"),
        ({"usages": ["walking"]}, "spec.usages[0]"),
        ({"signerName": "none"}, "spec.signerName"),
        ({"expirationSeconds": 5}, "spec.expirationSeconds"),
    ],
)
def test_bad_requests(server: Server, spec: dict[str, Any], field: str) -> None:
    answer = server.call("POST", PATH, body(**spec))
    assert answer.status == 422
    assert [cause["field"] for cause in answer.body["details"]["causes"]] == [field]


def test_no_certificate_has_all_rights(server: Server) -> None:
    answer = server.call("POST", PATH, body(request=signing_request("system:masters")))
    assert answer.status == 403
    assert "signer with system:masters group is not allowed" in answer.body["message"]


@pytest.mark.parametrize("part", ["approval", "status"])
def test_metadata_is_patched_with_a_part(server: Server, part: str) -> None:
    made = server.make(PATH, body(signerName="example.com/signer"))
    path = f"{PATH}/{made['metadata']['name']}"
    patch = {
        "metadata": {"annotations": {"patched": part}, "labels": {"a": "b"}},
        "spec": {"signerName": "example.com/o"},
    }
    answer = server.call("PATCH", f"{path}/{part}", patch, content_type="application/merge-patch+json")
    assert answer.status == 200
    kept = server.call("GET", path).body
    assert (kept["metadata"]["annotations"], kept["metadata"]["labels"]) == ({"patched": part}, {"a": "b"})
    assert kept["spec"] == made["spec"]

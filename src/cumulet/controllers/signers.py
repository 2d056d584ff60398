"""The rules of Kubernetes' own signers (`pkg/apis/certificates/v1/helpers.go`), and the authorities that they sign with.

The authority `cluster` signs client certificates, `kubelet-serving` the server certificates of nodes. Stricter than upstream,
`kubelet-serving` signs only the names and addresses of the node itself, and none of this installation. There is no signer
`legacy-unknown`, because certificates.k8s.io/v1 refuses such requests.
"""

from __future__ import annotations

import ipaddress

from cryptography import x509
from cryptography.x509.oid import NameOID

from cumulet.common.addresses import Address, is_of_one_machine_elsewhere, parse
from cumulet.common.ascii import fold
from cumulet.common.config import AuthorityName, Config
from cumulet.common.kubernetes.objects import Node
from cumulet.common.tls import Authority

CLIENT = "kubernetes.io/kube-apiserver-client"
NODE_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
NODE_SERVING = "kubernetes.io/kubelet-serving"
_NODE = "system:node:"
_COMMON = {"digital signature", "key encipherment"}
_USAGES = {
    CLIENT: {*_COMMON, "client auth"},
    NODE_CLIENT: {*_COMMON, "client auth"},
    NODE_SERVING: {*_COMMON, "server auth"},
}
_AUTHORITIES: dict[str, AuthorityName] = {CLIENT: "cluster", NODE_CLIENT: "cluster", NODE_SERVING: "kubelet-serving"}
_NAMES, _ADDRESSES = ("Hostname", "InternalDNS", "ExternalDNS"), ("InternalIP", "ExternalIP")
#: The domains of this machine, its API server and its services.
_HERE = ("localhost", "kubernetes", "kubernetes.default", "svc", "cluster.local")


class Signers:
    """The signers of the installation's own cluster."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def authority(self, signer: str) -> Authority:
        """Load the authority of a signer."""
        name = _AUTHORITIES[signer]
        return Authority.load(self._config.authority_file(name), self._config.authority_key_file(name))

    def fault_of_names(self, csr: x509.CertificateSigningRequest, node: Node | None) -> str | None:
        """Return why `kubelet-serving` refuses the alternative names, or `None`. Each must belong to this node only."""
        if node is None:
            return f"there is no node {node_name(csr)}"
        listed = (node.get("status") or {}).get("addresses") or ()
        names = {fold(item["address"]) for item in listed if item["type"] in _NAMES} | {node["metadata"]["name"]}
        addresses = {item["address"] for item in listed if item["type"] in _ADDRESSES}
        for name in alternatives(csr):
            text = fold(str(name.value))
            if isinstance(name, x509.IPAddress):
                is_own = text in addresses and not self._is_taken_address(parse(text))
            else:
                is_own = text in names and not self._is_taken_name(text)
            if not is_own:
                return f"subjectAltName {text} is not a name or address of node {node['metadata']['name']} alone"
        return None

    def _is_taken_name(self, name: str) -> bool:
        return any(name == end or name.endswith(f".{end}") for end in (*_HERE, self._config.registry_suffix))

    def _is_taken_address(self, address: Address) -> bool:
        config = self._config
        ranges = (config.service_cidr, config.pod_cidr, config.external_cidr)
        rooms = {listening.host for room, listening in config.addresses.items() if room != "node"}
        return (
            not is_of_one_machine_elsewhere(address)
            or any(address in ipaddress.ip_network(text) for text in ranges)
            or str(address) in rooms
        )


def fault(signer: str, csr: x509.CertificateSigningRequest, usages: list[str]) -> str | None:
    """Return why a signer refuses a request, or `None`."""
    requested = set(usages)
    if not requested <= _USAGES[signer] or not requested & {"client auth", "server auth"}:
        return f"usages did not match {sorted(_USAGES[signer])}"
    if signer == CLIENT:
        return None
    if attributes(csr, NameOID.ORGANIZATION_NAME) != ["system:nodes"]:
        return "subject organization is not system:nodes"
    if not node_name(csr):
        return f"subject common name does not begin with {_NODE}"
    names = alternatives(csr)
    if signer == NODE_CLIENT:
        return "subject alternative names are not allowed" if names else None
    if not any(isinstance(name, x509.DNSName | x509.IPAddress) for name in names):
        return "DNS or IP subjectAltName is required"
    if not all(isinstance(name, x509.DNSName | x509.IPAddress) for name in names):
        return "only DNS and IP subjectAltNames are allowed"
    return None


def is_signer(name: str) -> bool:
    """Return whether the signer exists."""
    return name in _AUTHORITIES


def node_name(csr: x509.CertificateSigningRequest) -> str:
    """Return the node that a request names, or an empty string."""
    names = attributes(csr, NameOID.COMMON_NAME)
    return names[0].removeprefix(_NODE) if len(names) == 1 and names[0].startswith(_NODE) else ""


def attributes(csr: x509.CertificateSigningRequest, oid: x509.ObjectIdentifier) -> list[str]:
    """Return the values of one attribute of the subject."""
    return [str(attribute.value) for attribute in csr.subject.get_attributes_for_oid(oid)]


def alternatives(csr: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    """Return the subject alternative names."""
    try:
        return list(csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []

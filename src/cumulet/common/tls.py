"""Certificates: authorities for one purpose each, and the TLS contexts of servers and clients.

Certificates are valid for months and authorities for years. Both are renewed after two thirds of that period. RFC 5280's
name constraints are not used, because clients such as docker refuse them if they are critical.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cumulet.common import clock
from cumulet.common.private_files import write_private

#: The extended key usage of a certificate, and of everything that an authority signs.
Purpose = Literal["server auth", "client auth"]
_PURPOSES: dict[Purpose, x509.ObjectIdentifier] = {
    "server auth": ExtendedKeyUsageOID.SERVER_AUTH,
    "client auth": ExtendedKeyUsageOID.CLIENT_AUTH,
}

AUTHORITY_LIFE = dt.timedelta(days=5 * 365)
LEAF_LIFE = dt.timedelta(days=90)
_SKEW = dt.timedelta(minutes=5)

Key = ec.EllipticCurvePrivateKey


class Authority:
    """A certificate authority in two PEM files, which signs for one purpose.

    Its own certificate states the purpose as extended key usage. OpenSSL, Go and others then reject every certificate
    that it signed for another purpose (RFC 5280, section 4.2.1.12, applied to the chain).
    """

    def __init__(self, certificate: x509.Certificate, key: Key) -> None:
        """Raises `ValueError` if the certificate does not state exactly one purpose."""
        self.certificate = certificate
        self.purpose = _purpose(certificate)
        self._key = key

    @classmethod
    def load(cls, certificate_file: Path, key_file: Path) -> Authority:
        """Load an authority. Raises `FileNotFoundError`, and `ValueError` if the files do not hold an authority and its key."""
        key = load_key(key_file)
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        if certificate.public_key() != key.public_key():
            raise ValueError(f"{key_file} is not the key of {certificate_file}")
        return cls(certificate, key)

    @classmethod
    def open(
        cls,
        certificate_file: Path,
        key_file: Path,
        name: str = "Cumulet local CA",
        purpose: Purpose = "server auth",
    ) -> Authority:
        """Load the authority, or create it if it has no certificate. Raises what `load` raises."""
        if certificate_file.exists():
            return cls.load(certificate_file, key_file)
        key = ec.generate_private_key(ec.SECP256R1())
        made = cls(_root(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key, purpose), key)
        # The certificate comes last: a crash in between leaves a key that nothing depends on.
        write_private(key_file, _key_pem(key))
        write_private(certificate_file, made.pem)
        return made

    @property
    def pem(self) -> bytes:
        """The certificate, PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def renewed(self) -> Authority:
        """Return the authority with a new validity period. The name and key stay, so certificates verify with either one."""
        return Authority(_root(self.certificate.subject, self._key, self.purpose), self._key)

    def signed(self, certificate: x509.Certificate) -> bool:
        """Return whether this authority signed a certificate."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    def issue(
        self,
        common_name: str,
        *,
        organizations: Sequence[str] = (),
        hosts: Sequence[str] = (),
        uri: str | None = None,
        life: dt.timedelta = LEAF_LIFE,
    ) -> tuple[bytes, bytes]:
        """Issue a certificate and key, PEM, for `hosts` (names, wildcards or addresses) or a URI.

        As a client of Kubernetes, `common_name` is the user and `organizations` are the groups.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [_name(host) for host in hosts]
        if uri is not None:
            names.append(x509.UniformResourceIdentifier(uri))
        builder = self._leaf(subject(common_name, organizations), key.public_key(), clock.now() + life)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return self._sign(builder), _key_pem(key)

    def sign(self, request: x509.CertificateSigningRequest, seconds: int) -> bytes:
        """Sign a request's subject, alternative names and key. Returns a PEM certificate that is valid for `seconds`."""
        key = request.public_key()
        builder = self._leaf(request.subject, key, clock.now() + dt.timedelta(seconds=seconds))
        with contextlib.suppress(x509.ExtensionNotFound):
            names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            builder = builder.add_extension(names.value, critical=names.critical)
        return self._sign(builder)

    def _leaf(self, of: x509.Name, key: CertificatePublicKeyTypes, ends: dt.datetime) -> x509.CertificateBuilder:
        return (
            _builder(of, self.certificate.subject, key, min(ends, self.certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([_PURPOSES[self.purpose]]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    def _sign(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def subject(common_name: str, organizations: Sequence[str] = ()) -> x509.Name:
    """Return the subject that `issue` gives a certificate."""
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations]
        + [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    )


def alternatives(certificate: x509.Certificate) -> set[str]:
    """Return the hosts and the URI in a certificate, in the form of the parameters of `issue`."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in names}


def load_key(file: Path) -> Key:
    """Load an elliptic curve key from PEM. Raises `FileNotFoundError`, `ValueError`."""
    key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{file} does not hold an elliptic curve key")
    return key


def renewal(certificate: x509.Certificate) -> dt.datetime:
    """Return when to renew a certificate: after two thirds of its validity period."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return ends - (ends - begins) / 3


class ServerContext(ssl.SSLContext):
    """A server's context that records the kind of its client certificates.

    With a `trust_domain` they identify the rooms of that SPIFFE trust domain; otherwise Kubernetes users, by subject.
    """

    trust_domain: str | None = None


def server_context(
    certificate: Path, key: Path, client_ca: Path | bytes | None = None, trust_domain: str | None = None
) -> ServerContext:
    """Return a server's context, TLS 1.2 or newer.

    With `client_ca`, a file or PEM, a client may present a certificate, but need not.
    """
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.trust_domain = trust_domain
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    # All ciphers are strong, and the client prefers the one that its processor accelerates.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    if client_ca is not None:
        if isinstance(client_ca, bytes):
            context.load_verify_locations(cadata=client_ca.decode())
        else:
            context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(ca: Path, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Return a client's context that trusts only `ca`, and presents `certificate` if it is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(ca)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def _root(name: x509.Name, key: Key, purpose: Purpose) -> x509.Certificate:
    return (
        _builder(name, name, key.public_key(), clock.now() + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_PURPOSES[purpose]]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _purpose(certificate: x509.Certificate) -> Purpose:
    try:
        usages = list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        usages = []
    for purpose, usage in _PURPOSES.items():
        if usages == [usage]:
            return purpose
    raise ValueError(f"the authority {certificate.subject.rfc4514_string()} is not for one purpose")


def _builder(
    of: x509.Name, issuer: x509.Name, key: CertificatePublicKeyTypes, ends: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(of)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(clock.now() - _SKEW)
        .not_valid_after(ends)
    )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

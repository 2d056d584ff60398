"""A client with its own certificate, and the assertions that it signs."""

from __future__ import annotations

import base64
import datetime as dt
import time
import uuid

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID


class Signer:
    """A key with a self-signed certificate, valid from `starts` to `ends` in days from now."""

    def __init__(self, starts: float = -1, ends: float = 1, key: rsa.RSAPrivateKey | None = None) -> None:
        self.key = key or rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client")])
        now = dt.datetime.now(dt.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + dt.timedelta(days=starts))
            .not_valid_after(now + dt.timedelta(days=ends))
            .sign(self.key, hashes.SHA256())
        )

    @property
    def der(self) -> str:
        """Return the certificate in base64, for `keyCredentials`."""
        return base64.b64encode(self.certificate.public_bytes(serialization.Encoding.DER)).decode()

    @property
    def pem(self) -> bytes:
        """Return the key and the certificate, PEM."""
        key = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return key + self.certificate.public_bytes(serialization.Encoding.PEM)

    def assertion(self, client_id: str, audience: str, algorithm: str = "PS256", **changed: object) -> str:
        """Return a client assertion (RFC 7523) with changed claims. A claim that is `None` is omitted."""
        now = int(time.time())
        claims = {
            "aud": audience,
            "iss": client_id,
            "sub": client_id,
            "nbf": now,
            "exp": now + 600,
            "jti": str(uuid.uuid4()),
            **changed,
        }
        digest = base64.urlsafe_b64encode(self.certificate.fingerprint(hashes.SHA256())).rstrip(b"=").decode()
        sent = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(sent, self.key, algorithm, headers={"x5t#S256": digest})

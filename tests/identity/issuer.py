"""An external issuer of tokens: an https server with OpenID discovery and a key set, and the tokens that it signs."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cumulet.common.tls import Authority
from tests.cloud import PEERS, Answer, Cloud

AUDIENCE = "api://AzureADTokenExchange"
SUBJECT = "system:serviceaccount:default:app"
TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Issuer:
    """The issuer. `keys` are published by their ids, `documents` are what it serves, `asked` are the requests."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[str] = []
        self.keys: dict[str, Key] = {"first": rsa.generate_private_key(65537, 2048)}
        self.documents: dict[str, Any] = {
            "/.well-known/openid-configuration": {"issuer": url, "jwks_uri": f"{url}/keys"}
        }
        self.extra: list[dict[str, Any]] = []

    def document(self, path: str) -> Any:
        """What is at a path, `None` for nothing."""
        self.asked.append(path)
        if path == "/keys":
            return {"keys": [*(published(kid, key) for kid, key in self.keys.items()), *self.extra]}
        return self.documents.get(path)

    def token(self, kid: str = "first", key: Any = None, algorithm: str | None = None, **changed: Any) -> str:
        """A token. A claim that is `None` is left out, and `headers` are added to the header."""
        headers = {"kid": kid, **changed.pop("headers", {})}
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": SUBJECT,
            "aud": [AUDIENCE],
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            **changed,
        }
        key = key if key is not None else self.keys[kid]
        usual = "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256"
        sent = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(sent, key, algorithm or usual, headers={k: v for k, v in headers.items() if v is not None})


def published(kid: str, key: Key) -> dict[str, Any]:
    """The JSON Web Key of a private key."""
    public = key.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        entry = jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        entry = jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True)
    return {**entry, "kid": kid, "use": "sig"}


@contextlib.contextmanager
def running(cloud: Cloud, folder: Path) -> Iterator[Issuer]:
    """An issuer with a certificate that the installation's authority signed."""
    authority = Authority.load(cloud.config.authority_file("serving"), cloud.config.authority_key_file("serving"))
    certificate, key = authority.issue("issuer", hosts=[PEERS])
    (folder / "issuer.pem").write_bytes(key + certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "issuer.pem")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = issuer.document(self.path)
            body = json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer((PEERS, 0), Handler) as server:
        issuer = Issuer(f"https://{PEERS}:{server.server_address[1]}")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join()


def trust(cloud: Cloud, app_id: str, issuer: str, **changed: Any) -> Answer:
    """Let an application trust an issuer."""
    body = {"name": "external", "issuer": issuer, "subject": SUBJECT, "audiences": [AUDIENCE], **changed}
    return cloud.graph("POST", f"/applications(appId='{app_id}')/federatedIdentityCredentials", body)


def ask(cloud: Cloud, client_id: str, assertion: str) -> Answer:
    """The token end point's answer to an assertion."""
    return cloud.ask_token(client_id=client_id, client_assertion=assertion, client_assertion_type=TYPE)

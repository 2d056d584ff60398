"""Who calls: client certificates of our authority, service accounts by their tokens, or nobody in particular."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cumulet.common.config import write_private
from cumulet.common.room import peer_certificate
from cumulet.kube.status import ApiError
from cumulet.kube.store import Store

AUDIENCE = "https://kubernetes.default.svc"
_ISSUER = "https://kubernetes.default.svc.cluster.local"
_AUTHENTICATED = "system:authenticated"


class User(NamedTuple):
    """A caller: name and groups, as RBAC knows them."""

    name: str
    groups: tuple[str, ...]
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


class ServiceAccountTokens:
    """Signs the tokens of service accounts (ES256) and checks them; one whose account is gone is refused."""

    def __init__(self, key_file: Path, store: Store) -> None:
        if not key_file.exists():
            pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            write_private(key_file, pem)
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key
        self._store = store

    def issue(
        self, namespace: str, name: str, uid: str, audiences: list[str], seconds: int, bound: dict[str, Any] | None
    ) -> tuple[str, int]:
        """A token, and when it ends in seconds since the epoch."""
        now = int(time.time())
        about: dict[str, Any] = {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}}
        if bound:
            about[bound.get("kind", "Pod").lower()] = {"name": bound.get("name", ""), "uid": bound.get("uid", "")}
        claims = {
            "aud": audiences,
            "exp": now + seconds,
            "iat": now,
            "nbf": now,
            "iss": _ISSUER,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": about,
            "sub": f"system:serviceaccount:{namespace}:{name}",
        }
        return jwt.encode(claims, self._key, "ES256"), now + seconds

    def verify(self, token: str, audiences: list[str] | None = None) -> User:
        """Whose token it is. Raises `jwt.InvalidTokenError`."""
        claims = jwt.decode(
            token, self._key.public_key(), algorithms=["ES256"], audience=audiences or [AUDIENCE], issuer=_ISSUER
        )
        about = claims["kubernetes.io"]
        namespace, account = about["namespace"], about["serviceaccount"]
        stored = self._store.get("serviceaccounts", namespace, account["name"])
        if stored is None or stored.load()["metadata"]["uid"] != account["uid"]:
            raise jwt.InvalidTokenError("the service account is gone")
        return User(
            claims["sub"],
            ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", _AUTHENTICATED),
            account["uid"],
        )


def authenticate(request: web.BaseRequest, tokens: ServiceAccountTokens) -> User:
    """The caller of a request. Raises `ApiError` 401 where credentials were shown and are not good."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        try:
            return tokens.verify(token.strip())
        except (jwt.InvalidTokenError, KeyError, TypeError):
            raise ApiError(401, "Unauthorized", "Unauthorized") from None
    peer = peer_certificate(request)
    if peer is not None:
        return User(peer.user, (*peer.groups, _AUTHENTICATED))
    return ANONYMOUS

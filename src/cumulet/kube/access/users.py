"""Users, and the tokens of service accounts."""

from __future__ import annotations

import base64
import hashlib
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cumulet.common import clock
from cumulet.common.ascii import fold
from cumulet.common.private_files import write_private
from cumulet.kube.store import Store

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import BoundObjectReference, UserInfo

AUDIENCE = "https://kubernetes.default.svc"
#: The issuer of tokens of earlier versions, which stay valid.
_FORMER_ISSUER = "https://kubernetes.default.svc.cluster.local"
AUTHENTICATED = "system:authenticated"
#: Tokens stay valid this long after the deletion of their object began, so that it can finish its work.
_LEEWAY = timedelta(seconds=60)


class User(NamedTuple):
    """A caller: name, groups, uid and extra, as RBAC uses them."""

    name: str
    groups: tuple[str, ...]
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


def user_info(user: User) -> UserInfo:
    """Return a user as a `UserInfo` of authentication.k8s.io/v1."""
    info: UserInfo = {"username": user.name, "groups": list(user.groups)}
    if user.extra:
        info["extra"] = {key: list(values) for key, values in user.extra}
    if user.uid:
        info["uid"] = user.uid
    return info


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


class ServiceAccountTokens:
    """Signs and verifies service account tokens (ES256); refuses the tokens of deleted accounts.

    `issuer` is the URL that verifiers elsewhere find the key at.
    """

    def __init__(self, key_file: Path, store: Store, issuer: str) -> None:
        if not key_file.exists():
            pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            write_private(key_file, pem)
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._key_id = base64.urlsafe_b64encode(hashlib.sha256(public).digest()).rstrip(b"=").decode()
        self._store = store
        self._issuer = issuer

    def is_issuer(self, name: object) -> bool:
        """Return whether a token with this `iss` is one of these, if it is genuine."""
        return name in (self._issuer, _FORMER_ISSUER)

    def issue(
        self,
        namespace: str,
        name: str,
        uid: str,
        audiences: list[str],
        seconds: int,
        bound: BoundObjectReference | None,
    ) -> tuple[str, int]:
        """Return a token, and its end in seconds since the epoch."""
        now = int(time.time())
        about: dict[str, object] = {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}}
        if bound:
            about[fold(bound.get("kind", "Pod"))] = {"name": bound.get("name", ""), "uid": bound.get("uid", "")}
        claims = {
            "aud": audiences,
            "exp": now + seconds,
            "iat": now,
            "nbf": now,
            "iss": self._issuer,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": about,
            "sub": f"system:serviceaccount:{namespace}:{name}",
        }
        return jwt.encode(claims, self._key, "ES256", headers={"kid": self._key_id}), now + seconds

    def verify(self, token: str, audiences: list[str] | None = None) -> User:
        """Return the user of a token. Raises `jwt.InvalidTokenError`."""
        claims = jwt.decode(
            token,
            self._key.public_key(),
            algorithms=["ES256"],
            audience=audiences or [AUDIENCE],
            issuer=[self._issuer, _FORMER_ISSUER],
        )
        about = claims["kubernetes.io"]
        namespace, account = about["namespace"], about["serviceaccount"]
        if not self._is_there("serviceaccounts", namespace, account):
            raise jwt.InvalidTokenError("the service account is gone")
        extra = {"authentication.kubernetes.io/credential-id": (f"JTI={claims['jti']}",)}
        for kind, resource in (("pod", "pods"), ("secret", "secrets"), ("node", "nodes")):
            if (bound := about.get(kind)) is None:
                continue
            if not self._is_there(resource, "" if kind == "node" else namespace, bound):
                raise jwt.InvalidTokenError(f"the {kind} that the token is bound to is gone")
            extra[f"authentication.kubernetes.io/{kind}-name"] = (bound["name"],)
            extra[f"authentication.kubernetes.io/{kind}-uid"] = (bound["uid"],)
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
        return User(claims["sub"], groups, account["uid"], tuple(extra.items()))

    def discovery(self) -> dict[str, str | list[str]]:
        """Return OpenID Connect discovery, for verifiers elsewhere."""
        return {
            "issuer": self._issuer,
            "jwks_uri": f"{self._issuer}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }

    def key_set(self) -> dict[str, list[dict[str, str]]]:
        """Return the public key (RFC 7517)."""
        key = jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {"keys": [{**key, "use": "sig", "alg": "ES256", "kid": self._key_id}]}

    def _is_there(self, resource: str, namespace: str, reference: BoundObjectReference) -> bool:
        """Return whether an object exists, or is terminating for less than a minute (`serviceaccount/claims.go`)."""
        stored = self._store.get(resource, namespace, reference["name"])
        if stored is None:
            return False
        metadata = stored.load()["metadata"]
        ends = metadata.get("deletionTimestamp")
        if ends and clock.now() > clock.parse(ends) + _LEEWAY:
            return False
        return bool(metadata["uid"] == reference["uid"])

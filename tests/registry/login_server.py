"""A registry of the suite, called over HTTP by its login server, with tokens from every kind of login."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import jwt

from cumulet.common.entra import REGISTRY_AUDIENCE, Credential
from tests.cloud import Answer, Cloud

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def basic(user: str, password: str) -> dict[str, str]:
    """The header of Basic authentication."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def claims_of(token: str) -> dict[str, Any]:
    """The claims of a token, without verification."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def codes(answer: Answer) -> list[str]:
    """The codes of errors in the OCI's form."""
    assert answer.headers.get_content_type() == "application/json"  # type: ignore[attr-defined]
    return [error["code"] for error in answer.body["errors"]]


def granted(token: str) -> dict[str, list[str]]:
    """The actions that an access token grants, by name."""
    return {entry["name"]: sorted(entry["actions"]) for entry in claims_of(token)["access"]}


class AcrRegistry:
    """One registry in the resource group `group`."""

    def __init__(self, cloud: Cloud, name: str, **properties: object) -> None:
        self.cloud = cloud
        self.name = name
        self.server = f"{name}.azurecr.io"
        self.id = f"{cloud.subscription}/resourceGroups/group/providers/Microsoft.ContainerRegistry/registries/{name}"
        body = {"location": "eastus", "sku": {"name": "Premium"}, "properties": properties}
        answer = cloud.arm("PUT", self.id, body)
        assert answer.status == 201, answer.body

    @property
    def endpoint(self) -> str:
        """The address of the login server on this machine."""
        return f"https://{self.server}:{self.cloud.config.addresses['registry'].port}"

    def arm(self, method: str, path: str = "", body: Any = None, **more: Any) -> Answer:
        """A call of the front door on the registry or a child resource."""
        return self.cloud.arm(method, f"{self.id}{path}", body, **more)

    def call(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> Answer:
        """A call of the data plane."""
        return self.cloud.call("registry", method, path, headers={"Host": self.server, **(headers or {})}, **more)

    def admin(self) -> tuple[str, str]:
        """The admin user and its first password."""
        answer = self.arm("POST", "/listCredentials").body
        return answer["username"], answer["passwords"][0]["value"]

    # Logins.

    def ask(self, user: str, password: str, *scopes: str) -> Answer:
        """Send `GET /oauth2/token`, as docker does."""
        query = urlencode([("service", self.server), *(("scope", scope) for scope in scopes)])
        return self.call("GET", f"/oauth2/token?{query}", headers=basic(user, password))

    def token(self, user: str, password: str, *scopes: str) -> str:
        """An access token for a user and password."""
        answer = self.ask(user, password, *scopes)
        assert answer.status == 200, answer.body
        token: str = answer.body["access_token"]
        return token

    def token_of(self, who: Credential, *scopes: str) -> str:
        """An access token for a service principal."""
        return self.token(who.client_id, who.client_secret, *scopes)

    def admin_token(self, *scopes: str) -> str:
        """An access token of the admin user."""
        return self.token(*self.admin(), *scopes)

    def form(self, path: str, **form: str) -> Answer:
        """Post a form."""
        return self.call("POST", path, form={"service": self.server, **form})

    def exchange(self, who: Credential | None = None, audience: str = REGISTRY_AUDIENCE) -> Answer:
        """Exchange an Entra token for a refresh token."""
        entra = self.cloud.token(who, audience)
        tenant = self.cloud.config.tenant_id
        return self.form("/oauth2/exchange", grant_type="access_token", tenant=tenant, access_token=entra)

    # Content.

    def push(self, repository: str, tag: str, content: bytes = b"layer", *, token: str | None = None) -> str:
        """Push an image with one layer and return its digest."""
        token = token or self.admin_token(f"repository:{repository}:pull,push")
        config = self.blob(repository, b'{"architecture":"amd64","os":"linux"}', token)
        layer = self.blob(repository, content, token)
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **layer}],
        }
        answer = self.call(
            "PUT",
            f"/v2/{repository}/manifests/{tag}",
            token=token,
            body=json.dumps(manifest).encode(),
            headers={"Content-Type": OCI_MANIFEST},
        )
        assert answer.status == 201, answer.body
        return answer.headers["Docker-Content-Digest"]

    def blob(self, repository: str, content: bytes, token: str) -> dict[str, Any]:
        """Push a blob and return its digest and size."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        answer = self.call(
            "POST",
            f"/v2/{repository}/blobs/uploads/?digest={digest}",
            token=token,
            body=content,
            headers={"Content-Type": "application/octet-stream"},
        )
        assert answer.status == 201, answer.body
        return {"digest": digest, "size": len(content)}

    def manifest(self, repository: str, reference: str, **more: Any) -> Answer:
        """Pull a manifest."""
        return self.call("GET", f"/v2/{repository}/manifests/{reference}", **more)

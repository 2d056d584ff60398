"""Each kind of credential that a registry accepts. Each allows push and pull."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from cumulet.common.entra import REGISTRY_AUDIENCE
from tests.cloud import Cloud

_API = "api-version=2023-07-01"


class Login(NamedTuple):
    """The credentials of a client."""

    user: str
    password: str

    @property
    def colon(self) -> str:
        """Return `user:password`."""
        return f"{self.user}:{self.password}"


class Registry:
    """A running registry, with the CA certificate in a folder in docker's layout."""

    def __init__(self, cloud: Cloud, folder: Path) -> None:
        self.cloud = cloud
        self.address = f"127.0.0.1:{cloud.config.addresses['registry'].port}"
        self.ca = cloud.config.ca_file
        self.certificates = folder / "certificates"
        self.certificates.mkdir()
        (self.certificates / "ca.crt").write_bytes(self.ca.read_bytes())
        group = f"{cloud.subscription}/resourceGroups/clients"
        self.id = f"{group}/providers/Microsoft.ContainerRegistry/registries/clients"
        self._arm("PUT", group, {"location": "eastus"})
        properties = {"adminUserEnabled": True}
        self._arm("PUT", self.id, {"location": "eastus", "sku": {"name": "Premium"}, "properties": properties})
        self._pusher = cloud.principal("pusher", AcrPush=self.id)

    def login(self, kind: str) -> Login:
        """Return a credential of a kind."""
        match kind:
            case "service principal":
                return Login(self._pusher.client_id, self._pusher.client_secret)
            case "admin user":
                answer = self._arm("POST", f"{self.id}/listCredentials")
                return Login(answer["username"], answer["passwords"][1]["value"])
            case "repository token":
                token = f"{self.id}/tokens/pusher"
                scope_map = f"{self.id}/scopeMaps/_repositories_push"
                self._arm("PUT", token, {"properties": {"scopeMapId": scope_map, "status": "enabled"}})
                answer = self._arm("POST", f"{self.id}/generateCredentials", {"tokenId": token})
                return Login(answer["username"], answer["passwords"][0]["value"])
            case "refresh token":
                form = {
                    "grant_type": "access_token",
                    "service": "clients.azurecr.io",
                    "tenant": self.cloud.config.tenant_id,
                    "access_token": self.cloud.token(self._pusher, REGISTRY_AUDIENCE),
                }
                exchanged = self.cloud.call("registry", "POST", "/oauth2/exchange", form=form)
                return Login("00000000-0000-0000-0000-000000000000", exchanged.body["refresh_token"])
        raise ValueError(kind)

    def allow_anonymous_pull(self, allowed: bool) -> None:
        """Enable or disable anonymous pull."""
        self._arm("PATCH", self.id, {"properties": {"anonymousPullEnabled": allowed}})

    def _arm(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.cloud.arm(method, f"{path}?{_API}", body)
        assert answer.status in (200, 201, 202), answer.body
        return answer.body

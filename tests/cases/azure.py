"""Azure Resource Manager as the owner of the subscription calls it, with requests as `az` sends them."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

from tests.installation import Installation

_VERSIONS = {
    "Microsoft.ContainerInstance": "2023-05-01",
    "Microsoft.ManagedIdentity": "2023-01-31",
    "Microsoft.Authorization": "2022-04-01",
}


class Answer(NamedTuple):
    """Status, headers and decoded JSON of an answer."""

    status: int
    headers: Mapping[str, str]
    body: Any


class AzureClient:
    """A client with the token of the owner."""

    def __init__(self, installation: Installation) -> None:
        folder = installation.data_dir
        self.settings: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
        owner = json.loads((folder / "credentials" / "owner.json").read_bytes())
        self._context = ssl.create_default_context(cafile=str(folder / "pki" / "ca.crt"))
        self.subscription = f"/subscriptions/{self.settings['subscription_id']}"
        self._arm = self._address("arm")
        form = {
            "grant_type": "client_credentials",
            "client_id": owner["clientId"],
            "client_secret": owner["clientSecret"],
            "scope": "https://management.azure.com/.default",
        }
        url = f"{self._address('identity')}/{owner['tenantId']}/oauth2/v2.0/token"
        answer = self._send("POST", url, urllib.parse.urlencode(form).encode(), {})
        self._token = answer.body["access_token"]

    def _address(self, room: str) -> str:
        found = self.settings["addresses"][room]
        return f"https://{found['host']}:{found['port']}"

    def call(self, method: str, path: str, body: Any = None) -> Answer:
        """Send a request to a path below the subscription, to a resource id, or to a URL of an answer."""
        url = path if path.startswith("https://") else self._arm + path
        version = next((version for name, version in _VERSIONS.items() if name in path), "2024-03-01")
        if "api-version" not in url:
            url += f"{'&' if '?' in url else '?'}api-version={version}"
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        return self._send(method, url, data, headers)

    def _send(self, method: str, url: str, data: bytes | None, headers: dict[str, str]) -> Answer:
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, context=self._context, timeout=100) as answer:
                return _answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, dict(error.headers), error.read())

    def finish(self, answer: Answer, *, seconds: float = 60) -> dict[str, Any]:
        """Poll the operation of an answer until it ends, as clients do, and return it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found: dict[str, Any] = self.call("GET", answer.headers["Azure-AsyncOperation"]).body
            if found["status"] != "InProgress":
                return found
        raise AssertionError(f"the operation did not end within {seconds} s")


def _answer(status: int, headers: Mapping[str, str], raw: bytes) -> Answer:
    return Answer(status, headers, json.loads(raw) if raw else None)


def container_group(image: str, *command: str, **properties: Any) -> dict[str, Any]:
    """A container group as `az container create` sends it."""
    container = {
        "name": "main",
        "properties": {
            "image": image,
            "command": list(command),
            "ports": [],
            "environmentVariables": [],
            "resources": {"requests": {"cpu": 1, "memoryInGB": 1}},
        },
    }
    return {
        "location": "eastus",
        "properties": {"osType": "Linux", "restartPolicy": "Always", "containers": [container], **properties},
    }

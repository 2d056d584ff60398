"""Secrets that hold the token of a service account."""

from __future__ import annotations

import base64
from typing import Any

from tests.cloud import Cloud
from tests.controllers.space import Object, Space

TYPE = "kubernetes.io/service-account-token"


def secret(name: str, account: str = "app", **metadata: Any) -> Object:
    """A secret that asks for a token."""
    annotations = {"kubernetes.io/service-account.name": account}
    return {"metadata": {"name": name, "annotations": annotations, **metadata}, "type": TYPE}


def _is_filled(obj: Object) -> bool:
    return {"token", "ca.crt", "namespace"} <= (obj.get("data") or {}).keys()


def test_a_secret_gets_the_token_of_its_account(space: Space, cluster: Cloud) -> None:
    space.make("serviceaccounts", {"metadata": {"name": "app"}})
    space.make("secrets", secret("app-token"))
    filled = space.wait("secrets", "app-token", _is_filled)
    account = space.get("serviceaccounts", "app")
    assert filled["metadata"]["annotations"]["kubernetes.io/service-account.uid"] == account["metadata"]["uid"]
    data = {key: base64.b64decode(value) for key, value in filled["data"].items()}
    assert data["namespace"] == space.name.encode()
    assert data["ca.crt"].startswith(b"-----BEGIN CERTIFICATE-----")
    # The token is the account's, and as good as the secret.
    options = ("--token", data["token"].decode(), "--kubeconfig", "/dev/null", "--server", cluster.config.url("kube"))
    authority = space.kubectl.home / "ca.crt"
    authority.write_bytes(data["ca.crt"])
    who = ("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", "--certificate-authority", str(authority))
    assert space.kubectl(*who, *options) == f"system:serviceaccount:{space.name}:app"
    space.delete("secrets", "app-token")
    space.wait_gone("secrets", "app-token")
    assert "Unauthorized" in space.kubectl(*who, *options, code=1)


def test_a_secret_goes_with_its_account(space: Space) -> None:
    space.make("serviceaccounts", {"metadata": {"name": "app"}})
    space.make("secrets", secret("app-token"), secret("of-nobody", "none"), {"metadata": {"name": "plain"}})
    space.wait_gone("secrets", "of-nobody")
    space.wait("secrets", "app-token", _is_filled)
    space.delete("serviceaccounts", "app")
    space.wait_gone("secrets", "app-token")
    assert "plain" in space.names("secrets")


def test_a_secret_of_an_earlier_account_of_the_name_goes(space: Space) -> None:
    space.make("serviceaccounts", {"metadata": {"name": "app"}})
    old = secret("old")
    old["metadata"]["annotations"]["kubernetes.io/service-account.uid"] = "00000000-0000-0000-0000-000000000000"
    space.make("secrets", old)
    space.wait_gone("secrets", "old")

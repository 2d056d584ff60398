"""Reads the pull secrets of a pod."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

import msgspec

from cumulet.common.ascii import fold
from cumulet.common.kubernetes import Informer
from cumulet.common.kubernetes.objects import Pod, Secret
from cumulet.node.resource import GroupCredential

_DOCKER = ("index.docker.io", "registry-1.docker.io")


class Credentials:
    """Reads the informer of secrets."""

    def __init__(self, secrets: Informer[Secret]) -> None:
        self._secrets = secrets

    def of(self, pod: Pod) -> tuple[list[GroupCredential], list[str]]:
        """Return `imageRegistryCredentials`, and the names of pull secrets that are missing or not valid."""
        credentials: dict[str, GroupCredential] = {}
        missing: list[str] = []
        for reference in pod["spec"].get("imagePullSecrets") or ():
            name = reference.get("name", "")
            secret = self._secrets.get(name, pod["metadata"]["namespace"])
            if secret is None:
                missing.append(name)
                continue
            try:
                entries = _entries(secret)
            except ValueError:
                missing.append(name)
                continue
            for server, username, password in entries:
                credentials.setdefault(server, {"server": server, "username": username, "password": password})
        return list(credentials.values()), missing


def _entries(secret: Secret) -> Iterator[tuple[str, str, str]]:
    """Yield (server, user name, password) of a pull secret of either type. Raises `ValueError`."""
    data = secret.get("data") or {}
    if secret.get("type") == "kubernetes.io/dockerconfigjson":
        document = msgspec.json.decode(base64.b64decode(data.get(".dockerconfigjson", "")))
        auths = document.get("auths") or {}
    elif secret.get("type") == "kubernetes.io/dockercfg":
        auths = msgspec.json.decode(base64.b64decode(data.get(".dockercfg", "")))
    else:
        raise ValueError(
            "image pull secret type is not one of kubernetes.io/dockercfg or kubernetes.io/dockerconfigjson"
        )
    for server, entry in auths.items():
        username, password = entry.get("username", ""), entry.get("password", "")
        if auth := entry.get("auth"):
            try:
                username, _, password = base64.b64decode(auth).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                raise ValueError(f"the auth of {server} is not base64") from None
        yield normal_server(server), username, password


def normal_server(text: str) -> str:
    """Return the host of a registry: of `https://index.docker.io/v1/`, for example, `docker.io`."""
    host = fold(re.sub(r"^\w+://", "", text.strip(), flags=re.ASCII).partition("/")[0])
    return "docker.io" if host in _DOCKER else host

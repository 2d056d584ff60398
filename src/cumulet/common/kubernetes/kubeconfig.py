"""Reading a kubeconfig (Kubernetes `client-go`, clientcmd v1): the server, its authority, the credentials."""

from __future__ import annotations

import base64
import ssl
import tempfile
from pathlib import Path

import msgspec

from cumulet.common.config import ConfigError
from cumulet.common.kubernetes.objects import Fields


class Kubeconfig(msgspec.Struct, frozen=True, kw_only=True):
    """The current context of a kubeconfig, resolved."""

    server: str
    #: The authority of the server's certificate, PEM. `None` stands for the authorities of the system.
    authority: bytes | None = None
    namespace: str = "default"
    ssl_context: ssl.SSLContext | None = None
    token: str | None = None
    #: Whether to request responses without compression, which is slower than sending them near the server.
    disable_compression: bool = False


def load_kubeconfig(path: Path, context: str | None = None) -> Kubeconfig:
    """Resolve a context, the current one by default. Raises `ConfigError` with the name of the file and its fault."""
    import yaml  # imported here, so that rooms without a kubeconfig do not load it

    try:
        document = yaml.safe_load(path.read_text())
        chosen = _named(document, "contexts", "context", context or document["current-context"])
        cluster = _named(document, "clusters", "cluster", chosen["cluster"])
        user = _named(document, "users", "user", chosen["user"])
        authority = _content(cluster, "certificate-authority", path.parent)
        return Kubeconfig(
            server=cluster["server"].rstrip("/"),
            authority=authority,
            namespace=chosen.get("namespace", "default"),
            ssl_context=_ssl_context(authority, cluster, user, path.parent),
            token=_token(user, path.parent),
            disable_compression=bool(cluster.get("disable-compression")),
        )
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"the kubeconfig {path} cannot be used: {type(error).__name__}: {error}") from error


def _named(document: Fields, plural: str, singular: str, name: str) -> Fields:
    for entry in document.get(plural) or ():
        if entry["name"] == name:
            found: Fields = entry.get(singular) or {}
            return found
    raise KeyError(f"no {singular} named {name!r}")


def _ssl_context(authority: bytes | None, cluster: Fields, user: Fields, folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _content(user, "client-certificate", folder), _content(user, "client-key", folder)
    if certificate and key:
        # The ssl module reads a chain only from a file. The folder is private and is deleted at once.
        with tempfile.TemporaryDirectory() as directory:
            chain = Path(directory) / "client.pem"
            chain.touch(mode=0o600)
            chain.write_bytes(certificate + b"\n" + key)
            context.load_cert_chain(chain)
    return context


def _content(entry: Fields, name: str, folder: Path) -> bytes | None:
    """The value of `name-data` (base64), or of the file `name` relative to the kubeconfig."""
    if data := entry.get(f"{name}-data"):
        return base64.b64decode(data)
    if file := entry.get(name):
        return Path(folder / str(file)).read_bytes()
    return None


def _token(user: Fields, folder: Path) -> str | None:
    if file := user.get("tokenFile"):
        return Path(folder / str(file)).read_text().strip()
    token: str | None = user.get("token")
    return token

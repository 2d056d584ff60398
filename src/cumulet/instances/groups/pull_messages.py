"""What is said of the pull of an image: with whose credential, how it went, and what mends it."""

from __future__ import annotations

from collections.abc import Sequence

from cumulet.common.ascii import fold
from cumulet.instances.images.cache import Pulled
from cumulet.instances.images.reference import parse
from cumulet.instances.model.properties import Credential


def credential_for(image: str, credentials: Sequence[Credential]) -> Credential | None:
    """The credential for the image's registry, and no other."""
    try:
        registry = parse(image).registry
    except ValueError:
        return None
    return next((item for item in credentials if fold(item.server) == fold(registry)), None)


def explain(image: str, credential: Credential | None, reason: str) -> str:
    """What failed, with whose credentials, in the registry's own words, and what mends it."""
    try:
        registry = parse(image).registry
    except ValueError:
        return f'Failed to pull image "{image}": {reason}'
    who = f"as principal '{credential.username}'" if credential else "without credentials"
    lower = fold(reason)
    if "manifest unknown" in lower or "name unknown" in lower:
        cure = "push the image, or correct its name or tag"
    elif "address is not allowed" in lower:
        cure = f"have the address of {registry} excepted with `cumulet up --allow-egress`, or use another registry"
    elif "failed to do request" in lower:
        cure = f"see whether {registry} is up and its name resolves; it is tried again"
    elif credential is None:
        cure = f"virtual nodes need a pull secret for {registry}: create one and name it in imagePullSecrets, also where the registry is attached to the cluster"
    elif "denied" in lower:
        cure = f"assign the role AcrPull on {registry} to the principal, or use one that has it in the pull secret"
    elif "unauthorized" in lower or "authorize" in lower:
        cure = "renew the secret of the principal and put it into the pull secret"
    else:
        cure = "it is tried again"
    return (
        f'Failed to pull image "{image}": from registry {registry} {who}: {reason.rstrip(".")}. To mend it: {cure}.'
    )


def success(image: str, pulled: Pulled) -> str:
    """How long it took and how large the image is, in a kubelet's words."""
    took = f"{pulled.seconds * 1000:.0f}ms" if pulled.seconds < 1 else f"{pulled.seconds:.3f}s"
    return (
        f'Successfully pulled image "{image}" in {took} ({took} including waiting). Image size: {pulled.size} bytes.'
    )

"""The messages about the pull of an image: the principal, the result, and the fix for a failure."""

from __future__ import annotations

from collections.abc import Sequence

from cumulet.common.ascii import fold
from cumulet.instances.images.cache import Pulled
from cumulet.instances.images.reference import parse
from cumulet.instances.model.properties import Credential


def credential_for(image: str, credentials: Sequence[Credential]) -> Credential | None:
    """Return the credential for the image's registry, or `None`."""
    try:
        registry = parse(image).registry
    except ValueError:
        return None
    return next((item for item in credentials if fold(item.server) == fold(registry)), None)


def explain(image: str, credential: Credential | None, reason: str) -> str:
    """Return the message for a failed pull: image, registry, principal, the registry's reason, and the fix."""
    try:
        registry = parse(image).registry
    except ValueError:
        return f'Failed to pull image "{image}": {reason}'
    if credential is not None:
        principal = f"as principal '{credential.identity or credential.username}'"
    else:
        principal = "without credentials"
    lower = fold(reason)
    if "manifest unknown" in lower or "name unknown" in lower:
        fix = "push the image, or correct its name or tag"
    elif "address is not allowed" in lower:
        fix = f"allow the address of {registry} with `cumulet up --allow-egress`, or use another registry"
    elif "failed to do request" in lower:
        fix = f"check that {registry} is running and that its name resolves; the pull is retried"
    elif credential is None:
        fix = f"create a pull secret for {registry} and name it in imagePullSecrets; virtual nodes need one even if the registry is attached to the cluster"
    elif "denied" in lower:
        fix = f"assign the role AcrPull on {registry} to the principal, or put a principal with that role into the pull secret"
    elif "unauthorized" in lower or "authorize" in lower:
        fix = "reset the secret of the principal and update the pull secret"
    else:
        fix = "none needed yet: the pull is retried"
    return f'Failed to pull image "{image}": from registry {registry} {principal}: {reason.rstrip(".")}. Fix: {fix}.'


def success(image: str, pulled: Pulled) -> str:
    """Return the kubelet's message for a successful pull."""
    took = f"{pulled.seconds * 1000:.0f}ms" if pulled.seconds < 1 else f"{pulled.seconds:.3f}s"
    done = (
        f'Successfully pulled image "{image}" in {took} ({took} including waiting). Image size: {pulled.size} bytes.'
    )
    if pulled.devices:
        return (
            f"{done} Device nodes of the image are left out: {pulled.devices}, such as /{pulled.first_device[:200]}."
        )
    return done

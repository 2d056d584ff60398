"""The messages about the pull of an image: the principals, the result, and the fix for a failure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from cumulet.common.image_reference import Reference
from cumulet.instances.images.cache import Pulled
from cumulet.instances.images.errors import OF_CREDENTIALS, Fault, PullError
from cumulet.instances.images.platforms import HERE
from cumulet.instances.model.properties import Credential

#: Registries whose principals and roles are Azure's.
_AZURE = re.compile(r"[a-z0-9-]+\.azurecr\.[a-z.]+")
_HELM = "application/vnd.cncf.helm."
#: The failures that say most about an image whose credentials are tried in turn, the most telling first.
_TELLING = (Fault.NOT_FOUND, Fault.BLOB_NOT_FOUND, Fault.DENIED, Fault.OTHER, Fault.UNAUTHORIZED)
#: Failures that a message has in full.
_TOLD = 5


class Failure(NamedTuple):
    """A pull that failed, with one of the credentials or without any."""

    credential: Credential | None
    error: PullError


def explain(image: str, reference: Reference, failures: Sequence[Failure]) -> str:
    """Return the message for a failed pull: image, registry, principals, the registry's reasons, and the fix."""
    told = [f"{_principal(credential)}: {str(error).rstrip('.')}" for credential, error in failures[:_TOLD]]
    if len(failures) > _TOLD:
        told.append(f"and as {len(failures) - _TOLD} more")
    reasons = "; ".join(told)
    last = failures[-1]
    if last.error.fault in OF_CREDENTIALS:
        last = min(failures, key=lambda failure: _TELLING.index(failure.error.fault))
    return f'Failed to pull image "{image}": from registry {reference.registry} {reasons}. Fix: {_fix(reference.registry, last)}.'


def _principal(credential: Credential | None) -> str:
    if credential is None:
        return "without credentials"
    return f"as principal '{credential.identity or credential.username}'"


def _fix(registry: str, failure: Failure) -> str:
    """Return what helps. Only where nothing else helps, and waiting can, it is that the pull is retried."""
    is_azure = _AZURE.fullmatch(registry) is not None
    match failure.error.fault:
        case Fault.NOT_FOUND:
            return "push the image, or correct its name or tag"
        case Fault.BLOB_NOT_FOUND | Fault.CORRUPT:
            return "push the image again: the registry does not have the content that its manifest names"
        case Fault.INVALID:
            return "rebuild the image and push it again"
        case Fault.ARTIFACT:
            if _HELM in str(failure.error):
                return "install the chart with `helm install`, and name an image in the pod"
            return "name an image in the pod; artifacts are not run"
        case Fault.PLATFORM:
            return f"build the image for {HERE} (`docker buildx build --platform {HERE}`), or name one that is for it"
        case Fault.FORMAT:
            return "rebuild the image with layers in gzip or zstd (`docker buildx build --output type=image,compression=gzip`)"
        case Fault.LIMIT:
            return "make the image smaller, for example with fewer layers and files"
        case Fault.STORAGE:
            return "free space on the disk of this installation (`cumulet images prune`); the pull is retried"
        case Fault.BUSY:
            return "none needed; the pull is retried"
        case Fault.ADDRESS:
            return f"allow the address of {registry} with `cumulet up --allow-egress`, or use another registry"
        case Fault.CERTIFICATE:
            return f"give {registry} a certificate that this machine trusts, or add its authority to the machine's"
        case Fault.UNREACHABLE:
            return f"check that {registry} is running and that its name resolves; the pull is retried"
        case Fault.INTERRUPTED:
            return f"check the connection to {registry}; the pull is retried"
        case Fault.UNAVAILABLE:
            return f"wait until {registry} accepts requests; the pull is retried"
        case Fault.UNAUTHORIZED | Fault.DENIED if failure.credential is None:
            return (
                f"create a pull secret for {registry} and name it in imagePullSecrets"
                "; virtual nodes need one even if the registry is attached to the cluster" * is_azure
            )
        case Fault.UNAUTHORIZED | Fault.DENIED if failure.credential is not None and failure.credential.identity:
            return (
                f"assign the identity to the container group, and the role AcrPull on {registry} to the identity; for the "
                "identity of a cluster's nodes, `cumulet registry attach` does this"
            )
        case Fault.DENIED if is_azure:
            return (
                f"assign the role AcrPull on {registry} to the principal, or put a principal with that role into the pull "
                "secret"
            )
        case Fault.DENIED:
            return "give the user the right to pull this repository, or put another user into the pull secret"
        case Fault.UNAUTHORIZED if is_azure:
            return "reset the secret of the principal and update the pull secret"
        case Fault.UNAUTHORIZED:
            return "correct the user name and password in the pull secret"
    return f"check what {registry} reports; the pull is retried"


def success(image: str, pulled: Pulled) -> str:
    """Return the kubelet's message for a successful pull, and what of the image is not as it should be."""
    took = f"{pulled.seconds * 1000:.0f}ms" if pulled.seconds < 1 else f"{pulled.seconds:.3f}s"
    text = (
        f'Successfully pulled image "{image}" in {took} ({took} including waiting). Image size: {pulled.size} bytes.'
    )
    if pulled.devices:
        text += f" Device nodes of the image are left out: {pulled.devices}, such as /{pulled.first_device[:200]}."
    return text + other_platform(pulled)


def present(image: str, pulled: Pulled) -> str:
    """Return the kubelet's message for an image that is used without its registry."""
    return (
        f'Container image "{image}" already present on machine and can be accessed by the pod{other_platform(pulled)}'
    )


def other_platform(pulled: Pulled) -> str:
    """Return docker's warning about an image that is for another platform, or nothing."""
    if pulled.platform is None:
        return ""
    return (
        f" The requested image's platform ({pulled.platform}) does not match the detected host platform ({HERE}) and no "
        "specific platform was requested."
    )


def never(image: str, is_present: bool) -> str:
    """Return the kubelet's message for an image that may not be pulled and cannot be used."""
    if is_present:
        return (
            f'Container image "{image}" is present with pull policy of Never but does not have the proper auth (image secret) '
            "that was used to pull the image"
        )
    return f'Container image "{image}" is not present with pull policy of Never'

"""Image references: registry, repository, tag and digest, by the grammar and the short forms of the distribution project.

The source is `distribution/reference` 0.6, which kubelets and container runtimes use (`ParseNormalizedNamed`).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cumulet.common import digests
from cumulet.common.ascii import fold

#: Docker Hub, the registry of a name without one, and the host that serves it.
DOCKER_HUB, DOCKER_HUB_HOST = "docker.io", "registry-1.docker.io"
#: The former name of Docker Hub, which credentials have to this day.
DOCKER_HUB_LEGACY = "index.docker.io"

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")
_ID = re.compile(r"[a-f0-9]{64}")
_LIMIT = 255
#: Characters of a reference that an error quotes.
_SHOWN = 300


class Reference(NamedTuple):
    """A parsed reference. `registry` is in lower case and may have a port; `target` is a digest or a tag.

    A reference with both a tag and a digest names the digest.
    """

    registry: str
    repository: str
    target: str

    @property
    def name(self) -> str:
        """`registry/repository`, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def is_digest(self) -> bool:
        """Whether `target` is a digest."""
        return ":" in self.target

    def __str__(self) -> str:
        return f"{self.name}{'@' if self.is_digest else ':'}{self.target}"


def parse(text: str) -> Reference:
    """Parse a reference, with the defaults `docker.io`, `library/` and `latest`. Raises `ValueError` in Docker's words."""
    if _ID.fullmatch(text):
        raise _error(text, f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    registry, rest = _split(text)
    path, at, digest = rest.partition("@")
    path, colon, tag = path.partition(":")
    if path != fold(path):
        raise _error(text, f"invalid reference format: repository name ({path[:_SHOWN]}) must be lowercase")
    valid = (
        _REGISTRY.fullmatch(registry)
        and _REPOSITORY.fullmatch(path)
        and (not colon or _TAG.fullmatch(tag))
        and (not at or digests.is_digest(digest))
    )
    if not valid:
        raise _error(text, "invalid reference format")
    if len(path) > _LIMIT or len(registry) > _LIMIT:
        raise _error(text, f"repository name must not be more than {_LIMIT} characters")
    return Reference(fold(registry), path, digest or tag or "latest")


def registry_key(server: str) -> str:
    """Return a registry in the form of `Reference.registry`: in lower case, and one name for Docker Hub."""
    host = fold(server)
    return DOCKER_HUB if host in (DOCKER_HUB_LEGACY, DOCKER_HUB_HOST) else host


def _split(text: str) -> tuple[str, str]:
    """Split the registry off: the first part is one if it has a dot, a port or a capital letter, or is `localhost`."""
    head, slash, tail = text.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost" or head != fold(head)):
        registry, rest = head, tail
    else:
        registry, rest = DOCKER_HUB, text
    if registry == DOCKER_HUB_LEGACY:
        registry = DOCKER_HUB
    if registry == DOCKER_HUB and "/" not in rest:
        rest = f"library/{rest}"
    return registry, rest


def _error(text: str, reason: str) -> ValueError:
    return ValueError(f'couldn\'t parse image name "{text[:_SHOWN]}": {reason}')

"""Pull secrets: which of their credentials a pod's images need, in the order in which a kubelet tries them.

The source is Kubernetes' `pkg/credentialprovider` (`BasicDockerKeyring`) and the documentation "Images", "Interpretation of
config.json". Credentials that are for none of the pod's images are not sent on.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from cumulet.common.ascii import fold
from cumulet.common.image_patterns import Pattern
from cumulet.common.image_reference import DOCKER_HUB, DOCKER_HUB_LEGACY, Reference, parse, registry_key
from cumulet.common.kubernetes import Informer
from cumulet.common.kubernetes.objects import Pod, Secret
from cumulet.node.resource import GroupCredential

_JSON, _LEGACY = "kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg"
#: What container groups accept as a user name or password, and the number of credentials of a group.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LONGEST = 64 * 1024
_CREDENTIALS = 500


class PodCredentials(NamedTuple):
    """The credentials for a pod's images, the names of pull secrets that do not exist, and what is wrong with others."""

    found: list[GroupCredential]
    missing: list[str]
    problems: list[str]

    @property
    def event(self) -> str:
        """The message of the event `FailedToRetrieveImagePullSecret`, or an empty string."""
        sentences = []
        if self.missing:
            names = ", ".join(self.missing)
            sentences.append(
                f"Unable to retrieve some image pull secrets ({names}); attempting to pull the image may not succeed."
            )
        return " ".join([*sentences, *self.problems])


class Puller(NamedTuple):
    """The identity of the kubelet, by its resource id, which registries of this cloud know by the suffix of their names."""

    identity: str
    suffix: str

    def credential(self, image: Reference) -> GroupCredential | None:
        """Return the credential for an image, as AKS's provider of credentials does (`acr-credential-provider`)."""
        if not image.registry.partition(":")[0].endswith(f".{self.suffix}"):
            return None
        return {"server": image.registry, "identity": self.identity}


class _Entry(NamedTuple):
    """A usable entry of a pull secret."""

    pattern: Pattern
    username: str
    password: str


class _EntryError(Exception):
    """An entry of a pull secret cannot be used; the message says why."""


class _SecretError(Exception):
    """A secret is not a pull secret; the message says why, and what to do."""


class Credentials:
    """Reads the pull secrets of pods. What is wrong with a secret is reported and never fails a pod.

    A `puller` comes after the secrets of the pod, as in the keyring of a kubelet.
    """

    def __init__(self, secrets: Informer[Secret], puller: Puller | None = None) -> None:
        self._secrets = secrets
        self.puller = puller

    def of(self, pod: Pod) -> PodCredentials:
        """Return the credentials for the pod's images. A credential for a part of a registry has `matchImages`."""
        images = _images(pod)
        entries: list[_Entry] = []
        missing, problems = [], []
        for reference in pod["spec"].get("imagePullSecrets") or ():
            name = reference.get("name", "")
            secret = self._secrets.get(name, pod["metadata"]["namespace"])
            if secret is None:
                missing.append(name)
                continue
            try:
                for found in _entries(secret, images):
                    if isinstance(found, _Entry):
                        entries.append(found)
                    else:
                        problems.append(f'The image pull secret "{name}" {found}.')
            except _SecretError as error:
                problems.append(f'The image pull secret "{name}" is not used: {error}.')
        credentials = _ordered(entries, images)
        if len(credentials) > _CREDENTIALS:
            problems.append(f"Only the first {_CREDENTIALS} of {len(credentials)} credentials are used.")
        used = credentials[:_CREDENTIALS]
        for image in images:
            own = self.puller.credential(image) if self.puller is not None else None
            if own is not None and own not in used:
                used.append(own)
        return PodCredentials(used, missing, problems)


def _images(pod: Pod) -> list[Reference]:
    """Return the images of a pod that have a valid name."""
    spec, images = pod["spec"], []
    named = [*(spec.get("initContainers") or ()), *spec["containers"], *(spec.get("ephemeralContainers") or ())]
    for container in named:
        try:
            images.append(parse(container.get("image", "")))
        except ValueError:
            continue
    return images


def _ordered(entries: list[_Entry], images: list[Reference]) -> list[GroupCredential]:
    """Return the credentials in a kubelet's order: the longest paths first, and the secrets of the pod in their order."""
    credentials: list[GroupCredential] = []
    for entry in sorted(entries, key=lambda entry: entry.pattern.key, reverse=True):
        for image in images:
            if entry.pattern.matches(image.name):
                _add(credentials, image, entry)
    for image in images:
        # Only if nothing else is for an image of Docker Hub, a kubelet uses the credentials of the Hub's former name.
        if image.registry == DOCKER_HUB and not any(entry.pattern.matches(image.name) for entry in entries):
            for entry in entries:
                if _is_hub(entry.pattern):
                    _add(credentials, image, entry)
    return credentials


def _is_hub(pattern: Pattern) -> bool:
    return not pattern.path and registry_key(pattern.key) == DOCKER_HUB


def _add(credentials: list[GroupCredential], image: Reference, entry: _Entry) -> None:
    credential: GroupCredential = {
        # Azure Container Instances know Docker Hub by its former name.
        "server": DOCKER_HUB_LEGACY if image.registry == DOCKER_HUB else image.registry,
        "username": entry.username,
        "password": entry.password,
    }
    if entry.pattern.path:
        credential["matchImages"] = [entry.pattern.key]
    if credential not in credentials:
        credentials.append(credential)


def _entries(secret: Secret, images: list[Reference]) -> Iterator[_Entry | str]:
    """Yield the entries for these images, and what is wrong with others for them. Raises `_SecretError`."""
    for server, value in _auths(secret).items():
        pattern = Pattern.parse(server)
        if pattern is None or not any(
            pattern.matches(image.name) or (image.registry == DOCKER_HUB and _is_hub(pattern)) for image in images
        ):
            continue
        shown = server[:200].encode("unicode_escape").decode()
        try:
            username, password = _login(value)
        except _EntryError as error:
            yield f"is not used for {shown}: {error}"
        else:
            yield _Entry(pattern, username, password)


def _auths(secret: Secret) -> dict[str, object]:
    """Return the entries of a pull secret of either type, by server. Raises `_SecretError`."""
    kind = secret.get("type") or "Opaque"
    if kind not in (_JSON, _LEGACY):
        raise _SecretError(
            f"its type {kind} is neither {_JSON} nor {_LEGACY}; recreate it with `kubectl create secret docker-registry`"
        )
    key = ".dockerconfigjson" if kind == _JSON else ".dockercfg"
    try:
        document = msgspec.json.decode(base64.b64decode((secret.get("data") or {}).get(key) or ""))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _SecretError(f"its key {key} is not valid JSON: {error}") from None
    auths = document
    if kind == _JSON:
        auths = _folded(document).get("auths") if isinstance(document, dict) else document
    if not isinstance(auths, dict):
        if auths is None:
            return {}
        raise _SecretError(f"its key {key} has no object of servers")
    return auths


def _login(value: object) -> tuple[str, str]:
    """Return the user name and password of an entry; `auth` has precedence. Raises `_EntryError`."""
    if not isinstance(value, dict):
        raise _EntryError("its entry is not an object")
    fields, given = {}, _folded(value)
    for name in ("username", "password", "auth"):
        field = given.get(name)
        if not isinstance(field, str | None):
            raise _EntryError(f"its {name} is not a string")
        fields[name] = field or ""
    username, password = fields["username"], fields["password"]
    if auth := fields["auth"]:
        username, password = _decoded(auth)
    if not username and not password:
        raise _EntryError("it has no user name and password for this server")
    for name, text in (("user name", username), ("password", password)):
        if _CONTROL.search(text):
            raise _EntryError(f"its {name} has a control character, such as a line feed at the end")
        if len(text) > _LONGEST:
            raise _EntryError(f"its {name} is longer than {_LONGEST} characters")
    return username, password


def _folded(document: dict[str, object]) -> dict[str, object]:
    """Return a document with names in lower case, which Go's decoder does not tell apart."""
    return {fold(name): value for name, value in document.items()}


def _decoded(auth: str) -> tuple[str, str]:
    """Return the user name and password of `auth`: base64, also without padding or URL-safe. Raises `_EntryError`."""
    text = re.sub(r"[\s=]", "", auth, flags=re.ASCII).replace("-", "+").replace("_", "/")
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        raise _EntryError("its auth is not base64 of a user name and password") from None
    username, colon, password = decoded.partition(":")
    if not colon:
        raise _EntryError("its auth has no colon between user name and password")
    return username, password.rstrip("\0")

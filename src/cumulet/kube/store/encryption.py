"""Secrets at rest: AES-256-GCM, with a key of the installation's own in a file that only its user reads."""

from __future__ import annotations

import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cumulet.common.config import write_private

#: What is sealed; everything else is kept as it is.
_SEALED = frozenset({"secrets"})
_PREFIX = b"sealed:v1:"
_NONCE = 12


class SealError(Exception):
    """A sealed object cannot be opened: the key file is another one, or the object was moved or changed."""


class Sealer:
    """Seals the bodies of some resources; each is bound to its place, so that none can be put in another's."""

    def __init__(self, key_file: Path) -> None:
        if not key_file.exists():
            write_private(key_file, secrets.token_bytes(32))
        self._cipher = AESGCM(key_file.read_bytes())

    def seal(self, resource: str, namespace: str, name: str, body: bytes) -> bytes:
        """What is written to disk."""
        if resource not in _SEALED:
            return body
        nonce = secrets.token_bytes(_NONCE)
        return _PREFIX + nonce + self._cipher.encrypt(nonce, body, _place(resource, namespace, name))

    def open(self, resource: str, namespace: str, name: str, sealed: bytes) -> bytes:
        """What was sealed; what was written in the open before is taken as it is. Raises `SealError`."""
        if not sealed.startswith(_PREFIX):
            return sealed
        nonce, rest = sealed[len(_PREFIX) :][:_NONCE], sealed[len(_PREFIX) + _NONCE :]
        try:
            return self._cipher.decrypt(nonce, rest, _place(resource, namespace, name))
        except InvalidTag:
            raise SealError(
                f"{resource} {namespace}/{name} cannot be opened with the key of this installation"
            ) from None


def _place(resource: str, namespace: str, name: str) -> bytes:
    return "\0".join((resource, namespace, name)).encode()

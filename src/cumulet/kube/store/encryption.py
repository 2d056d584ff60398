"""Encryption of secrets at rest: AES-256-GCM, with a key in a file that only its owner can read."""

from __future__ import annotations

import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cumulet.common.private_files import write_private

#: The encrypted resources; others are stored as they are.
_SEALED = frozenset({"secrets"})
_PREFIX = b"sealed:v1:"
_NONCE = 12


class SealError(Exception):
    """An object cannot be decrypted: the key file is another one, or the object was moved or changed."""


class Sealer:
    """Encrypts the bodies of some resources; each is bound to its key, so that rows cannot be exchanged."""

    def __init__(self, key_file: Path) -> None:
        if not key_file.exists():
            write_private(key_file, secrets.token_bytes(32))
        self._cipher = AESGCM(key_file.read_bytes())

    def seal(self, resource: str, namespace: str, name: str, body: bytes) -> bytes:
        """Return a body as it is written to disk."""
        if resource not in _SEALED:
            return body
        nonce = secrets.token_bytes(_NONCE)
        return _PREFIX + nonce + self._cipher.encrypt(nonce, body, _place(resource, namespace, name))

    def open(self, resource: str, namespace: str, name: str, sealed: bytes) -> bytes:
        """Return a decrypted body; unencrypted ones of older versions are returned as they are.

        Raises `SealError`.
        """
        if not sealed.startswith(_PREFIX):
            return sealed
        nonce, rest = sealed[len(_PREFIX) :][:_NONCE], sealed[len(_PREFIX) + _NONCE :]
        try:
            return self._cipher.decrypt(nonce, rest, _place(resource, namespace, name))
        except InvalidTag:
            raise SealError(
                f"cannot decrypt {resource} {namespace}/{name} with the key of this installation"
            ) from None


def _place(resource: str, namespace: str, name: str) -> bytes:
    return "\0".join((resource, namespace, name)).encode()

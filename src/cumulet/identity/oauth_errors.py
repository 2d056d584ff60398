"""Errors of the token endpoint."""

from __future__ import annotations


class OAuthError(Exception):
    """An error of the token endpoint (RFC 6749, section 5.2) with Entra's numeric code; `retry_after` is in seconds."""

    def __init__(self, status: int, error: str, code: int, description: str, retry_after: int | None = None) -> None:
        super().__init__(description)
        self.status = status
        self.error = error
        self.code = code
        self.retry_after = retry_after


def invalid_client(code: int, description: str) -> OAuthError:
    """Return the error for a client that is not authenticated."""
    return OAuthError(401, "invalid_client", code, description)

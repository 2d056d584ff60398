"""Why a pull failed: the reason, and the kind, which decides what helps."""

from __future__ import annotations

from enum import Enum, auto


class Fault(Enum):
    """The kinds of failures of a pull."""

    #: No connection, or no name.
    UNREACHABLE = auto()
    #: The address is refused by this installation (`common.egress`).
    ADDRESS = auto()
    #: The certificate of the server is not trusted.
    CERTIFICATE = auto()
    #: The registry or its token server does not accept the credentials, or demands some.
    UNAUTHORIZED = auto()
    #: The credentials are good, and do not have the right to pull.
    DENIED = auto()
    #: The registry has no such manifest, repository or registry.
    NOT_FOUND = auto()
    #: The registry has a manifest, but not one of the blobs that it names.
    BLOB_NOT_FOUND = auto()
    #: The registry asks to wait, or has a failure of its own.
    UNAVAILABLE = auto()
    #: The connection broke, or brought too little.
    INTERRUPTED = auto()
    #: The content is not what its digest or its size says.
    CORRUPT = auto()
    #: A document or an archive is not valid.
    INVALID = auto()
    #: It is an artifact, such as a chart, and not an image.
    ARTIFACT = auto()
    #: The image is for other platforms.
    PLATFORM = auto()
    #: The image uses a format that is not supported.
    FORMAT = auto()
    #: The image exceeds a limit.
    LIMIT = auto()
    #: This machine could not store the image.
    STORAGE = auto()
    #: This machine unpacks other images now.
    BUSY = auto()
    #: Anything else that the registry or the connection reports.
    OTHER = auto()


#: Kinds of failures that other credentials for the same registry may not have.
OF_CREDENTIALS = frozenset({Fault.UNAUTHORIZED, Fault.DENIED, Fault.NOT_FOUND, Fault.BLOB_NOT_FOUND, Fault.OTHER})


class PullError(Exception):
    """The pull failed; the message is the registry's own reason if it gave one."""

    def __init__(self, message: str, fault: Fault = Fault.OTHER) -> None:
        super().__init__(message)
        self.fault = fault

"""The variables of a group's containers for its managed identities, from which Microsoft's libraries find the token endpoint.

They are App Service's (protocol 2019-08-01). ACI sets only `IDENTITY_HEADER` in Linux groups, where libraries then use the metadata
service, which works here too.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

from cumulet.common.doors import METADATA
from cumulet.common.private_files import write_private
from cumulet.instances.store.records import GroupRecord

ENDPOINT_PATH = "/msi/token"


class WorkloadEnvironment:
    """The variables. The header of a group follows from a key in a file, so a restart of the room keeps it.

    `has_endpoint` is whether `IDENTITY_ENDPOINT` is set, which ACI does not do.
    """

    def __init__(self, key_file: Path, *, has_endpoint: bool) -> None:
        if not key_file.exists():
            write_private(key_file, os.urandom(32))
        self._key = key_file.read_bytes()
        self._has_endpoint = has_endpoint

    def header(self, record: GroupRecord) -> str:
        """Return the secret that requests of the group have in `X-IDENTITY-HEADER`."""
        return hmac.new(self._key, record.uid.encode(), hashlib.sha256).hexdigest()

    def variables(self, record: GroupRecord) -> dict[str, str]:
        """Return the variables of a group's containers, none if it has no identity."""
        if record.given_identity is None:
            return {}
        endpoint = {"IDENTITY_ENDPOINT": f"http://{METADATA.host}{ENDPOINT_PATH}"} if self._has_endpoint else {}
        return {**endpoint, "IDENTITY_HEADER": self.header(record)}

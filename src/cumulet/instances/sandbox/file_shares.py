"""The file shares of storage accounts, which are folders of this machine (`file_shares` in the settings).

A container writes as root of its user namespace, which is root on disk: a program with the set-user-id bit would be root's.
So only the owner of the installation may reach the folder.
"""

from __future__ import annotations

import hmac
import os
import stat
from collections.abc import Sequence

from cumulet.common.ascii import fold
from cumulet.common.config import FileShare
from cumulet.instances.model.properties import AzureFile
from cumulet.instances.sandbox import beneath
from cumulet.instances.sandbox.errors import SandboxError


class FileShares:
    """The shares by account and name, which are compared without case."""

    def __init__(self, shares: Sequence[FileShare]) -> None:
        self._shares = {(fold(share.account), fold(share.name)): share for share in shares}

    def open(self, wanted: AzureFile) -> int:
        """Return a descriptor (`O_PATH`) of the folder of a share. Raises `SandboxError` without access to it."""
        name = f"{wanted.storage_account_name}/{wanted.share_name}"
        share = self._shares.get((fold(wanted.storage_account_name), fold(wanted.share_name)))
        if share is None:
            raise SandboxError(f"the share {name} does not exist here: add it to file_shares in config.json")
        if not hmac.compare_digest((wanted.storage_account_key or "").encode(), share.key.encode()):
            raise SandboxError(f"the storage account key for the share {name} is wrong")
        try:
            folder = beneath.open_folder(share.folder)
        except OSError as error:
            raise SandboxError(f"the folder of the share {name} cannot be opened: {error.strerror}") from None
        status = os.fstat(folder)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            os.close(folder)
            raise SandboxError(
                f"other users can reach the folder of the share {name}: make it root's, with mode 0700"
            )
        return folder

"""Volumes that container instances have themselves: shares of Azure Files and git repositories.

A share is named by an `azureFile` volume or by an inline volume of the driver `file.csi.azure.com`, as with the ACI provider
of the virtual kubelet. Its credentials are in a secret of the pod's namespace.
"""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Pod, Volume
from cumulet.node.errors import MissingError, UnsupportedError
from cumulet.node.references import References, not_found, secret_data
from cumulet.node.resource import GroupAzureFile, GroupGitRepo, GroupVolume

#: The keys of a storage account's secret.
_ACCOUNT, _KEY = "azurestorageaccountname", "azurestorageaccountkey"


def azure_volume(pod: Pod, volume: Volume, references: References) -> GroupVolume | None:
    """Return a volume of a group, or `None` for one of another type. Raises `MissingError`, `UnsupportedError`."""
    name = volume["name"]
    if (file := volume.get("azureFile")) is not None:
        share = _share(pod, file.get("shareName", ""), file.get("secretName", ""), references)
        return {"name": name, "azureFile": {**share, "readOnly": bool(file.get("readOnly"))}}
    if (csi := volume.get("csi")) is not None:
        attributes: dict[str, str] = csi.get("volumeAttributes") or {}
        for key, words in (("shareName", "share name"), ("secretName", "secret name")):
            if not attributes.get(key):
                raise UnsupportedError(f"{words} for AzureFile CSI driver {name} cannot be empty or nil")
        share = _share(pod, attributes["shareName"], attributes["secretName"], references)
        return {"name": name, "azureFile": {**share, "readOnly": bool(csi.get("readOnly"))}}
    if (git := volume.get("gitRepo")) is not None:
        clone: GroupGitRepo = {"repository": git["repository"]}
        if revision := git.get("revision"):
            clone["revision"] = revision
        if directory := git.get("directory"):
            clone["directory"] = directory
        return {"name": name, "gitRepo": clone}
    return None


def _share(pod: Pod, share: str, secret_name: str, references: References) -> GroupAzureFile:
    secret = references.secret(pod["metadata"]["namespace"], secret_name)
    if secret is None:
        raise MissingError(not_found("secret", secret_name))
    data = secret_data(secret)
    values = {}
    for key in (_ACCOUNT, _KEY):
        # A file that a secret was made of may end with a line feed.
        values[key] = data.get(key, b"").decode(errors="replace").strip()
        if not values[key]:
            raise MissingError(f'secret "{secret_name}" has no {key}')
    return {"shareName": share, "storageAccountName": values[_ACCOUNT], "storageAccountKey": values[_KEY]}

"""Workload identity: what the webhook of azure-workload-identity 1.5 adds to a pod, in AKS's add-on of the same name.

It is a plug-in and not a webhook, because a webhook is a server that must run before the first pod. The pod is changed at the same
place, so `kubectl get pod -o yaml` shows the same environment, volume and mounts. A cluster that has the webhook too gets nothing
twice: both leave what is there.

The authority of this cloud is unknown to images, so the pod also gets a bundle of authorities: those of the machine, and that of
the installation. A variable that the container sets itself stays.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.names import unnamed
from cumulet.kube.apimachinery.status import forbidden
from cumulet.kube.store import Store

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import EnvVar, ObjectMeta, PodSpec, Volume, VolumeMount

_PREFIX = "azure.workload.identity"
USE = f"{_PREFIX}/use"
_CLIENT, _TENANT = f"{_PREFIX}/client-id", f"{_PREFIX}/tenant-id"
_EXPIRATION = f"{_PREFIX}/service-account-token-expiration"
_SKIP = f"{_PREFIX}/skip-containers"
_PROXY = (f"{_PREFIX}/inject-proxy-sidecar", f"{_PREFIX}/proxy-sidecar-port")

_CONTAINERS: tuple[Literal["initContainers", "containers"], ...] = ("initContainers", "containers")
_AUDIENCE = "api://AzureADTokenExchange"
_TOKEN, _TOKEN_FOLDER, _TOKEN_FILE = "azure-identity-token", "/var/run/secrets/azure/tokens", "azure-identity-token"
_SHORTEST, _LONGEST = 3600, 86400
_SECONDS = re.compile(r"[0-9]{1,9}")

#: The config map with the authorities, which a controller makes in the namespaces of such pods, and its file.
TRUST, TRUST_FILE = "azure-ca-bundle", "ca-bundle.crt"
_TRUST_FOLDER = "/var/run/secrets/azure/ca"


class Cloud(NamedTuple):
    """The cloud of a cluster: its tenant, and the URL of its authority for pods."""

    tenant: str
    authority_host: str


class WorkloadIdentity:
    """The plug-in."""

    def __init__(self, store: Store, cloud: Cloud) -> None:
        self._store = store
        self._cloud = cloud

    def complete(self, pod: Object) -> None:
        """Complete a new pod that has the label, in place; its service account is known to exist. Raises `ApiError` 403."""
        metadata: ObjectMeta = pod["metadata"]
        if (metadata.get("labels") or {}).get(USE) != "true":
            return
        given = metadata.get("annotations") or {}
        for annotation in _PROXY:
            if annotation in given:
                raise _refused(
                    pod, f"{annotation} is not supported: there is no proxy for Microsoft Entra Pod Identity"
                )
        spec: PodSpec = pod["spec"]
        account = self._account(metadata["namespace"], spec.get("serviceAccountName") or "default")
        text = given.get(_EXPIRATION) or account.get(_EXPIRATION) or str(_SHORTEST)
        if not _SECONDS.fullmatch(text) or not _SHORTEST <= int(text) <= _LONGEST:
            raise _refused(
                pod,
                f"token expiration {text[:20]} not valid. Expected value to be between {_SHORTEST} and {_LONGEST}",
            )
        variables = {
            "AZURE_CLIENT_ID": account.get(_CLIENT, ""),
            "AZURE_TENANT_ID": account.get(_TENANT, self._cloud.tenant),
            "AZURE_FEDERATED_TOKEN_FILE": f"{_TOKEN_FOLDER}/{_TOKEN_FILE}",
            "AZURE_AUTHORITY_HOST": self._cloud.authority_host,
            "SSL_CERT_FILE": f"{_TRUST_FOLDER}/{TRUST_FILE}",
            "REQUESTS_CA_BUNDLE": f"{_TRUST_FOLDER}/{TRUST_FILE}",
        }
        skipped = {name.strip() for name in given.get(_SKIP, "").split(";")}
        for kind in _CONTAINERS:
            for container in spec.get(kind) or ():
                if container["name"] in skipped:
                    continue
                container["env"] = _with_variables(container.get("env") or [], variables)
                container["volumeMounts"] = _with_mounts(container.get("volumeMounts") or [])
        spec["volumes"] = _with_volumes(spec.get("volumes") or [], int(text))

    def _account(self, namespace: str, name: str) -> dict[str, str]:
        """Return the annotations of a service account."""
        stored = self._store.get("serviceaccounts", namespace, name)
        annotations: dict[str, str] = {} if stored is None else stored.load()["metadata"].get("annotations") or {}
        return annotations


def _with_variables(env: list[EnvVar], variables: dict[str, str]) -> list[EnvVar]:
    present = {item["name"] for item in env}
    added: list[EnvVar] = [
        {"name": name, "value": value} for name, value in variables.items() if value and name not in present
    ]
    return [*env, *added]


def _with_mounts(mounts: list[VolumeMount]) -> list[VolumeMount]:
    """Return mounts with both folders. A mount of the token is replaced; one at the place of the authorities stays."""
    token: VolumeMount = {"name": _TOKEN, "mountPath": _TOKEN_FOLDER, "readOnly": True}
    trust: VolumeMount = {"name": TRUST, "mountPath": _TRUST_FOLDER, "readOnly": True}
    mounts = [token if item["name"] == _TOKEN else item for item in mounts]
    if token not in mounts:
        mounts.append(token)
    if not any(item["mountPath"] == _TRUST_FOLDER for item in mounts):
        mounts.append(trust)
    return mounts


def _with_volumes(volumes: list[Volume], seconds: int) -> list[Volume]:
    """Return volumes with the token and the authorities; volumes of these names are replaced."""
    token: Volume = {
        "name": _TOKEN,
        "projected": {
            "sources": [
                {
                    "serviceAccountToken": {
                        "audience": _AUDIENCE,
                        "expirationSeconds": seconds,
                        "path": _TOKEN_FILE,
                    }
                }
            ],
            "defaultMode": 420,
        },
    }
    trust: Volume = {
        "name": TRUST,
        "configMap": {"name": TRUST, "items": [{"key": TRUST_FILE, "path": TRUST_FILE}], "defaultMode": 420},
    }
    for wanted in (token, trust):
        volumes = [wanted if item["name"] == wanted["name"] else item for item in volumes]
        if wanted not in volumes:
            volumes.append(wanted)
    return volumes


def _refused(pod: Object, why: str) -> Exception:
    return forbidden("", "pods", unnamed(pod), f"workload identity: {why}")

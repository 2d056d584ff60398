"""Requests to a Kubernetes API server (Kubernetes API concepts: verbs, watch, patch types, Status errors)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import quote

import aiohttp
import msgspec

from cumulet.common.kubernetes.kubeconfig import Kubeconfig

Object = dict[str, Any]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

#: Asks for the metadata of objects and nothing else of them.
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

#: A watched line holds one object; etcd's own limit on a request is 1.5 MiB.
_LINE_LIMIT = 8 * 1024 * 1024


class Resource(NamedTuple):
    """A kind of object and where it is served."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`v1` or `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path; without a namespace, of the whole cluster. A name that others gave is one segment, whatever it is."""
        path = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if self.namespaced and namespace:
            path += f"/namespaces/{namespace}"
        path += f"/{self.plural}"
        if name:
            path += f"/{quote(name, safe=':')}"
        if subresource:
            path += f"/{subresource}"
        return path


PODS = Resource("", "v1", "pods", "Pod")
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
SERVICES = Resource("", "v1", "services", "Service")
ENDPOINTS = Resource("", "v1", "endpoints", "Endpoints")
SECRETS = Resource("", "v1", "secrets", "Secret")
CONFIGMAPS = Resource("", "v1", "configmaps", "ConfigMap")
EVENTS = Resource("", "v1", "events", "Event")
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
SERVICEACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
PERSISTENTVOLUMECLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
PERSISTENTVOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
REPLICATIONCONTROLLERS = Resource("", "v1", "replicationcontrollers", "ReplicationController")
RESOURCEQUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
REPLICASETS = Resource("apps", "v1", "replicasets", "ReplicaSet")
STATEFULSETS = Resource("apps", "v1", "statefulsets", "StatefulSet")
DAEMONSETS = Resource("apps", "v1", "daemonsets", "DaemonSet")
CONTROLLERREVISIONS = Resource("apps", "v1", "controllerrevisions", "ControllerRevision")
JOBS = Resource("batch", "v1", "jobs", "Job")
CRONJOBS = Resource("batch", "v1", "cronjobs", "CronJob")
ENDPOINTSLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
DISRUPTIONBUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
AUTOSCALERS = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
STORAGECLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)
CLUSTERROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
SIGNINGREQUESTS = Resource(
    "certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", namespaced=False
)


class KubernetesError(Exception):
    """A `Status` of failure: HTTP code, machine-readable reason (`NotFound`, `Conflict`, …) and message."""

    def __init__(self, code: int, status: Mapping[str, Any]) -> None:
        super().__init__(status.get("message") or f"HTTP {code}")
        self.code = code
        self.status = dict(status)
        self.reason: str = status.get("reason") or ""


class Client:
    """One user's connection to one API server; an async context manager."""

    def __init__(self, kubeconfig: Kubeconfig, *, user_agent: str) -> None:
        self._user_agent = user_agent
        self.use(kubeconfig)
        self._session: aiohttp.ClientSession | None = None

    def use(self, kubeconfig: Kubeconfig) -> None:
        """Be who this kubeconfig says, from the next request on."""
        self.kubeconfig = kubeconfig
        self._headers = {"User-Agent": self._user_agent, "Accept": "application/json"}
        if kubeconfig.disable_compression:
            self._headers["Accept-Encoding"] = "identity"
        if kubeconfig.token:
            self._headers["Authorization"] = f"Bearer {kubeconfig.token}"
        self._ssl = kubeconfig.ssl_context or True

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            read_bufsize=_LINE_LIMIT // 4,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str | None = None,
    ) -> Any:
        """One call; the decoded JSON answer. Raises `KubernetesError`, `aiohttp.ClientError`, `TimeoutError`."""
        assert self._session is not None, "the client is not open"
        data = None if body is None else msgspec.json.encode(body)
        headers = self._headers | ({"Content-Type": content_type} if data is not None else {})
        if accept is not None:
            headers["Accept"] = accept
        async with (
            self._session.request(
                method,
                self.kubeconfig.server + path,
                params=params,
                data=data,
                headers=headers,
                ssl=self._ssl,
                timeout=aiohttp.ClientTimeout(total=60, sock_connect=10),
            ) as response,
        ):
            raw = await response.read()
            if response.status >= 400:
                raise _failure(response.status, raw)
            return msgspec.json.decode(raw)

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        """Read one object."""
        found: Object = await self.request("GET", resource.path(namespace, name))
        return found

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        params: Mapping[str, str] | None = None,
        *,
        accept: str | None = None,
    ) -> Object:
        """Read a list object: `metadata.resourceVersion` and `items` (each without `kind` and `apiVersion`)."""
        found: Object = await self.request("GET", resource.path(namespace), params=params, accept=accept)
        found["items"] = found.get("items") or []  # servers in Go may write an empty list as null
        return found

    async def create(
        self, resource: Resource, obj: Object, namespace: str | None = None, subresource: str | None = None
    ) -> Object:
        """Create an object in its `metadata.namespace` (or `namespace`), or post to a sub-resource of it."""
        metadata = obj.get("metadata", {})
        path = resource.path(
            namespace or metadata.get("namespace"), metadata.get("name") if subresource else None, subresource
        )
        made: Object = await self.request(
            "POST", path, body={"apiVersion": resource.api_version, "kind": resource.kind} | obj
        )
        return made

    async def update(self, resource: Resource, obj: Object, subresource: str | None = None) -> Object:
        """Replace an object, or its `status`; a stale `resourceVersion` is a conflict."""
        metadata = obj["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"], subresource)
        updated: Object = await self.request(
            "PUT", path, body={"apiVersion": resource.api_version, "kind": resource.kind} | obj
        )
        return updated

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
        content_type: str = MERGE_PATCH,
        params: Mapping[str, str] | None = None,
    ) -> Object:
        """Patch an object or a sub-resource of it."""
        path = resource.path(namespace, name, subresource)
        patched: Object = await self.request("PATCH", path, body=patch, content_type=content_type, params=params)
        return patched

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        grace_period_seconds: int | None = None,
        propagation_policy: Literal["Background", "Foreground", "Orphan"] | None = None,
        uid: str | None = None,
    ) -> Object:
        """Delete an object, where `uid` is given only that very one."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        if propagation_policy is not None:
            options["propagationPolicy"] = propagation_policy
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        deleted: Object = await self.request("DELETE", resource.path(namespace, name), body=options)
        return deleted

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        params: Mapping[str, str],
        accept: str | None = None,
    ) -> AsyncIterator[tuple[str, Object]]:
        """The events of one watch, as (type, object), until the server ends it. An `ERROR` event is raised."""
        assert self._session is not None, "the client is not open"
        async with self._session.get(
            self.kubeconfig.server + resource.path(namespace),
            params={"watch": "true", "allowWatchBookmarks": "true", **params},
            headers=self._headers | ({"Accept": accept} if accept is not None else {}),
            ssl=self._ssl,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=None),
        ) as response:
            if response.status >= 400:
                raise _failure(response.status, await response.read())
            pending = bytearray()
            async for chunk in response.content.iter_any():
                pending += chunk
                *lines, rest = pending.split(b"\n")
                pending = bytearray(rest)
                for line in lines:
                    event = msgspec.json.decode(line)
                    if event["type"] == "ERROR":
                        raise KubernetesError(event["object"].get("code", 500), event["object"])
                    yield event["type"], event["object"]


def _failure(code: int, raw: bytes) -> KubernetesError:
    try:
        status = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        status = None
    if not isinstance(status, dict):
        status = {"message": raw[:500].decode(errors="replace")}
    return KubernetesError(code, status)

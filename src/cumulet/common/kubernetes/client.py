"""Requests to a Kubernetes API server (Kubernetes API concepts: verbs, watch, patch types, Status errors)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Generic, Literal, NamedTuple, Self, TypedDict, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from cumulet.common.kubernetes.kubeconfig import Kubeconfig
from cumulet.common.kubernetes.objects import (
    CertificateSigningRequest,
    ClusterRole,
    ConfigMap,
    ControllerRevision,
    CronJob,
    DaemonSet,
    DeleteOptions,
    Deployment,
    Endpoints,
    EndpointSlice,
    Event,
    Fields,
    HorizontalPodAutoscaler,
    Job,
    Lease,
    Namespace,
    NetworkPolicy,
    Node,
    Object,
    PartialObjectMetadata,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    PodDisruptionBudget,
    ReplicaSet,
    ReplicationController,
    ResourceQuota,
    Secret,
    Service,
    ServiceAccount,
    StatefulSet,
    Status,
    StorageClass,
)

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"

#: Media types that request only the metadata of objects.
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

#: A line of a watch holds one object. etcd limits a request to 1.5 MiB.
_LINE_LIMIT = 8 * 1024 * 1024

T = TypeVar("T", bound=PartialObjectMetadata)


class Resource(NamedTuple, Generic[T]):
    """A kind of object and where it is served. The type argument is the type of its objects."""

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
        """The URL path; without a namespace, the path of the whole cluster. A name is quoted to stay one segment."""
        path = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if self.namespaced and namespace:
            path += f"/namespaces/{namespace}"
        path += f"/{self.plural}"
        if name:
            path += f"/{quote(name, safe=':')}"
        if subresource:
            path += f"/{subresource}"
        return path


#: A resource of any kind.
AnyResource = Resource[Any]

PODS: Resource[Pod] = Resource("", "v1", "pods", "Pod")
NODES: Resource[Node] = Resource("", "v1", "nodes", "Node", namespaced=False)
SERVICES: Resource[Service] = Resource("", "v1", "services", "Service")
ENDPOINTS: Resource[Endpoints] = Resource("", "v1", "endpoints", "Endpoints")
SECRETS: Resource[Secret] = Resource("", "v1", "secrets", "Secret")
CONFIGMAPS: Resource[ConfigMap] = Resource("", "v1", "configmaps", "ConfigMap")
EVENTS: Resource[Event] = Resource("", "v1", "events", "Event")
NAMESPACES: Resource[Namespace] = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
SERVICEACCOUNTS: Resource[ServiceAccount] = Resource("", "v1", "serviceaccounts", "ServiceAccount")
PERSISTENTVOLUMECLAIMS: Resource[PersistentVolumeClaim] = Resource(
    "", "v1", "persistentvolumeclaims", "PersistentVolumeClaim"
)
PERSISTENTVOLUMES: Resource[PersistentVolume] = Resource(
    "", "v1", "persistentvolumes", "PersistentVolume", namespaced=False
)
REPLICATIONCONTROLLERS: Resource[ReplicationController] = Resource(
    "", "v1", "replicationcontrollers", "ReplicationController"
)
RESOURCEQUOTAS: Resource[ResourceQuota] = Resource("", "v1", "resourcequotas", "ResourceQuota")
DEPLOYMENTS: Resource[Deployment] = Resource("apps", "v1", "deployments", "Deployment")
REPLICASETS: Resource[ReplicaSet] = Resource("apps", "v1", "replicasets", "ReplicaSet")
STATEFULSETS: Resource[StatefulSet] = Resource("apps", "v1", "statefulsets", "StatefulSet")
DAEMONSETS: Resource[DaemonSet] = Resource("apps", "v1", "daemonsets", "DaemonSet")
CONTROLLERREVISIONS: Resource[ControllerRevision] = Resource(
    "apps", "v1", "controllerrevisions", "ControllerRevision"
)
JOBS: Resource[Job] = Resource("batch", "v1", "jobs", "Job")
CRONJOBS: Resource[CronJob] = Resource("batch", "v1", "cronjobs", "CronJob")
ENDPOINTSLICES: Resource[EndpointSlice] = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
LEASES: Resource[Lease] = Resource("coordination.k8s.io", "v1", "leases", "Lease")
NETWORKPOLICIES: Resource[NetworkPolicy] = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
DISRUPTIONBUDGETS: Resource[PodDisruptionBudget] = Resource(
    "policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"
)
AUTOSCALERS: Resource[HorizontalPodAutoscaler] = Resource(
    "autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"
)
STORAGECLASSES: Resource[StorageClass] = Resource(
    "storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False
)
CLUSTERROLES: Resource[ClusterRole] = Resource(
    "rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False
)
SIGNINGREQUESTS: Resource[CertificateSigningRequest] = Resource(
    "certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", namespaced=False
)


class ObjectList(TypedDict, Generic[T]):
    """A list of objects of one kind. The items have no `kind` and `apiVersion`."""

    metadata: Object
    items: list[T]


class KubernetesError(Exception):
    """A `Status` of failure: HTTP code, machine-readable reason (`NotFound`, `Conflict`, …) and message."""

    def __init__(self, code: int, status: Status) -> None:
        super().__init__(status.get("message") or f"HTTP {code}")
        self.code = code
        self.status: Status = {**status}
        self.reason: str = status.get("reason") or ""


@contextlib.contextmanager
def suppress_stale() -> Iterator[None]:
    """Leave the block if an object is gone (404), or was changed or replaced since it was read (409).

    The watch of the object delivers its new state.
    """
    try:
        yield
    except KubernetesError as error:
        if error.code not in (404, 409):
            raise


class Client:
    """One user's connection to one API server; an async context manager."""

    def __init__(self, kubeconfig: Kubeconfig, *, user_agent: str) -> None:
        self._user_agent = user_agent
        self.use(kubeconfig)
        self._session: aiohttp.ClientSession | None = None

    def use(self, kubeconfig: Kubeconfig) -> None:
        """Use the server and the credentials of this kubeconfig from the next request on."""
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
        body: object = None,
        content_type: str = "application/json",
        accept: str | None = None,
    ) -> Any:
        """Send one request and return the decoded JSON response.

        Raises `KubernetesError`, `aiohttp.ClientError`, `TimeoutError`.
        """
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

    async def get(self, resource: Resource[T], name: str, namespace: str | None = None) -> T:
        """Read one object."""
        found: T = await self.request("GET", resource.path(namespace, name))
        return found

    async def list(
        self,
        resource: Resource[T],
        namespace: str | None = None,
        params: Mapping[str, str] | None = None,
        *,
        accept: str | None = None,
    ) -> ObjectList[T]:
        """Read all objects of a resource in one namespace or in all."""
        found: ObjectList[T] = await self.request("GET", resource.path(namespace), params=params, accept=accept)
        found["items"] = found.get("items") or []  # servers in Go may encode an empty list as null
        return found

    async def create(self, resource: Resource[T], obj: T, namespace: str | None = None) -> T:
        """Create an object in its `metadata.namespace`, or in `namespace`."""
        path = resource.path(namespace or obj["metadata"].get("namespace"))
        made: T = await self.request("POST", path, body=_typed(resource, obj))
        return made

    async def update(self, resource: Resource[T], obj: T, subresource: str | None = None) -> T:
        """Replace an object, or its `status`. A stale `resourceVersion` is a conflict."""
        metadata = obj["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"], subresource)
        updated: T = await self.request("PUT", path, body=_typed(resource, obj))
        return updated

    async def update_status(self, resource: Resource[T], obj: T, status: Fields) -> T:
        """Replace the `status` of an object. A stale `resourceVersion` is a conflict."""
        metadata = obj["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"], "status")
        updated: T = await self.request("PUT", path, body={**_typed(resource, obj), "status": status})
        return updated

    async def patch(
        self,
        resource: Resource[T],
        name: str,
        patch: Object | Sequence[Object],
        namespace: str | None = None,
        *,
        subresource: str | None = None,
        content_type: str = MERGE_PATCH,
        params: Mapping[str, str] | None = None,
    ) -> T:
        """Patch an object or a subresource of it. A JSON patch is a list of operations, any other an object."""
        path = resource.path(namespace, name, subresource)
        patched: T = await self.request("PATCH", path, body=patch, content_type=content_type, params=params)
        return patched

    async def patch_pod_status(self, pod: Pod, status: Object) -> Pod:
        """Patch the status of a pod with a strategic merge patch, which keeps the conditions of others.

        Another pod of its name is a conflict.
        """
        metadata = pod["metadata"]
        return await self.patch(
            PODS,
            metadata["name"],
            {"metadata": {"uid": metadata["uid"]}, "status": status},
            metadata["namespace"],
            subresource="status",
            content_type=STRATEGIC_MERGE_PATCH,
        )

    async def delete(
        self,
        resource: Resource[T],
        name: str,
        namespace: str | None = None,
        *,
        grace_period_seconds: int | None = None,
        propagation_policy: Literal["Background", "Foreground", "Orphan"] | None = None,
        uid: str | None = None,
    ) -> T | None:
        """Delete an object; with `uid` only if its UID is the same.

        Returns the object while it is terminating, or `None` once it is gone.
        """
        options: DeleteOptions = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        if propagation_policy is not None:
            options["propagationPolicy"] = propagation_policy
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        answer = await self.request("DELETE", resource.path(namespace, name), body=options)
        if answer.get("kind") != resource.kind or not answer["metadata"].get("deletionTimestamp"):
            return None
        deleted: T = answer
        return deleted

    async def watch(
        self,
        resource: Resource[T],
        namespace: str | None = None,
        *,
        params: Mapping[str, str],
        accept: str | None = None,
    ) -> AsyncIterator[tuple[str, T]]:
        """Yield the events of one watch as (type, object) until the server ends it. Raises an `ERROR` event."""
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


def _typed(resource: Resource[T], obj: T) -> Object:
    """An object with the `apiVersion` and `kind` of its resource, unless it states its own."""
    return {"apiVersion": resource.api_version, "kind": resource.kind, **obj}


def _failure(code: int, raw: bytes) -> KubernetesError:
    try:
        return KubernetesError(code, msgspec.json.decode(raw, type=Status))
    except msgspec.DecodeError:
        return KubernetesError(code, {"message": raw[:500].decode(errors="replace")})

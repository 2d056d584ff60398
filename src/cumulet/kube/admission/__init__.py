"""Admission: plug-ins that complete or refuse an object before it is stored. The set is upstream's default, and
workload identity, which in AKS is a webhook.

A write (`AdmissionRequest`) comes in with its object, its predecessor and its user. The mutating plug-ins and
webhooks change the object in place, then the validating ones decide. A refusal is a 403 `Status` or the webhook's
own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.access.node_authorization import restrict
from cumulet.kube.access.users import User
from cumulet.kube.admission import certificates, escalation
from cumulet.kube.admission.limits import LimitRanges
from cumulet.kube.admission.mutations import Mutations
from cumulet.kube.admission.pods import PodDefaults
from cumulet.kube.admission.policies import Policies
from cumulet.kube.admission.quota import Quotas
from cumulet.kube.admission.runtime import RuntimeClasses
from cumulet.kube.admission.security import PodSecurity
from cumulet.kube.admission.storage import complete_claim
from cumulet.kube.admission.webhooks import AdmissionRequest, Webhooks
from cumulet.kube.admission.workload_identity import Cloud, WorkloadIdentity
from cumulet.kube.apimachinery.names import unnamed
from cumulet.kube.apimachinery.status import ApiError, forbidden, not_found
from cumulet.kube.catalog.custom_conversion import Conversions
from cumulet.kube.catalog.resources import Row
from cumulet.kube.clients.webhooks import WebhookClient
from cumulet.kube.store import Store

SYSTEM_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
_DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"


class Admission:
    """The plug-ins, in upstream's order: mutating, validating, and quotas last."""

    def __init__(self, store: Store, client: WebhookClient, conversions: Conversions, cloud: Cloud) -> None:
        self._store = store
        self.webhooks = Webhooks(store, client, conversions)
        self._policies = Policies(store, conversions)
        self._mutations = Mutations(store, conversions)
        self._pods = PodDefaults(store)
        self._identities = WorkloadIdentity(store, cloud)
        self._limits = LimitRanges(store)
        self._runtimes = RuntimeClasses(store)
        self._security = PodSecurity(store)
        self._quotas = Quotas(store)
        self._certificates = certificates.CertificateRequests(store)
        self._escalations = escalation.Escalations(store)

    def admit(self, row: Row, obj: Object, user: User) -> None:
        """Check and complete a new object, in place. Raises `ApiError` 403, 404 and 405."""
        restrict(user, "CREATE", row, "", obj, None)
        if row.namespaced:
            self._namespace(row, obj)
        if row.custom is not None:
            self._definition(row)
        if row.key == "pods":
            self._pods.complete(obj)
            self._identities.complete(obj)
            self._limits.complete(obj)
            self._runtimes.complete(obj)
        elif row.key == "persistentvolumeclaims":
            complete_claim(self._store, obj)
        elif row.key == certificates.KEY:
            self._certificates.admit(obj, user)

    @property
    def changes(self) -> bool:
        """Return whether there are policies or webhooks that change objects."""
        return bool(self._mutations.bound) or self.webhooks.mutate

    async def change(
        self, request: AdmissionRequest, warnings: list[str], complete: Callable[[Object], None]
    ) -> Object | None:
        """Return the object as policies and webhooks change it; `complete` runs after each change.

        Raises `ApiError`.
        """
        request = request._replace(obj=await self._mutations.change(request, complete))
        if not self.webhooks.mutate:
            return request.obj
        changed = await self.webhooks.change(request, warnings, complete)
        if changed == request.obj or not self._mutations.bound:
            return changed
        return await self._mutations.change(request._replace(obj=changed), complete, again=True)

    def list_rows_with(self, rows: Callable[[], Iterable[Row]]) -> None:
        """Set the function that lists the served resources, for matches in every version."""
        self.webhooks.rows = self._policies.rows = self._mutations.rows = rows

    async def validate(self, request: AdmissionRequest, warnings: list[str]) -> None:
        """Let plug-ins, policies and webhooks decide on the final form of a write. Raises `ApiError`."""
        self._check(request)
        await self._policies.check(request, warnings)
        await self.webhooks.check(request, warnings)

    async def admit_part(
        self, request: AdmissionRequest, warnings: list[str], complete: Callable[[Object], None]
    ) -> Object:
        """Mutate and validate the body of a sub-resource. Raises `ApiError`."""
        obj = request.obj
        assert obj is not None
        if self.changes:
            obj = await self.change(request, warnings, complete) or obj
        await self.validate(request._replace(obj=obj), warnings)
        return obj

    def _check(self, request: AdmissionRequest) -> None:
        obj, old, part = request.obj, request.old, request.subresource
        if obj is None or request.kind is not None:
            return
        match request.row.key:
            case "pods":
                if old is None or part == "resize":
                    self._limits.check_pod(obj)
                if old is None:
                    self._runtimes.check(obj)
                    self._security.check(obj)
                elif part in ("", "ephemeralcontainers", "resize"):
                    self._security.check_update(obj, old)
            case "persistentvolumeclaims" if not part:
                if old is None or not old["metadata"].get("deletionTimestamp"):
                    self._limits.check_claim(obj)
            case key if key in escalation.KEYS:
                self._escalations.check(request)
            case "priorityclasses.scheduling.k8s.io":
                self._pods.check_class(obj)

    def charge(self, row: Row, obj: Object, old: Object | None = None, subresource: str = "") -> None:
        """Charge quotas, as the last step before an object is stored. Raises `ApiError` 403."""
        if row.namespaced:
            self._quotas.check(row, obj, old, subresource)

    def used(self, row: Row, obj: Object) -> dict[str, dict[str, str]]:
        """Return the used amounts of each quota, by name, after a new object is stored."""
        return self._quotas.used(row, obj) if row.namespaced else {}

    def warnings(self, row: Row, obj: Object) -> list[str]:
        """Return warnings for the writer of an admitted object."""
        return self._security.warnings(row, obj) if row.namespaced else []

    def admit_update(self, row: Row, subresource: str, obj: Object, old: Object, user: User) -> None:
        """Check and complete an update, in place. Raises `ApiError` 403."""
        restrict(user, "UPDATE", row, subresource, obj, old)
        if row.key == "pods" and subresource in ("", "resize"):
            self._pods.keep(obj, old)
            if subresource:
                self._limits.complete(obj)
        if row.key == certificates.KEY:
            self._certificates.admit_update(subresource, obj, old, user)

    def complete_update(self, row: Row, subresource: str, obj: Object) -> None:
        """Restore what an update left out, before the changes are computed; in place."""
        if row.key == "pods" and not subresource:
            self._pods.tolerate(obj)

    def admit_deletion(self, row: Row, obj: Object, user: User) -> None:
        """Check a deletion: rights of nodes, and namespaces that a cluster needs. Raises `ApiError` 403."""
        restrict(user, "DELETE", row, "", None, obj)
        name = obj["metadata"]["name"]
        if row.key == "namespaces" and name in ("default", "kube-public", "kube-system"):
            raise forbidden("", "namespaces", name, "this namespace may not be deleted")

    def _namespace(self, row: Row, obj: Object) -> None:
        namespace = obj["metadata"]["namespace"]
        stored = self._store.get("namespaces", "", namespace)
        if stored is None:
            raise not_found("", "namespaces", namespace)
        if stored.fields.get("status.phase") == "Terminating":
            raise forbidden(
                row.group,
                row.plural,
                unnamed(obj),
                f"unable to create new content in namespace {namespace} because it is being terminated",
            )

    def _definition(self, row: Row) -> None:
        """Refuse new objects of a terminating definition. Raises `ApiError` 405."""
        stored = self._store.get(_DEFINITIONS, "", row.key)
        is_named = stored is not None and b'"deletionTimestamp"' in stored.body  # a definition may be large
        if stored is not None and is_named and stored.load()["metadata"].get("deletionTimestamp"):
            why = "create not allowed while custom resource definition is terminating"
            raise ApiError(405, "MethodNotAllowed", why, {})

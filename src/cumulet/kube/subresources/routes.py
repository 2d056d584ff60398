"""The handlers of the sub-resources: scale, binding, eviction, token, finalize, log, proxy and the streams."""

from __future__ import annotations

from aiohttp import web

from cumulet.common import clock
from cumulet.common.ascii import fold, is_digits
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.access.attributes import Attributes
from cumulet.kube.access.authentication import Authenticator, TokenError
from cumulet.kube.access.authorization import Authorizer
from cumulet.kube.access.users import AUDIENCE, ServiceAccountTokens, User, user_info
from cumulet.kube.apimachinery.status import bad_request, conflict, forbidden, invalid, method_not_allowed
from cumulet.kube.catalog import kinds
from cumulet.kube.catalog.resources import BY_KEY
from cumulet.kube.clients.kubelet import Kubelet
from cumulet.kube.fields import Manager, track
from cumulet.kube.http.body import dry_run, manager, part, whole
from cumulet.kube.http.negotiation import check_plain, encode
from cumulet.kube.http.options import check_named
from cumulet.kube.http.request_info import Target
from cumulet.kube.http.write_context import WriteContext
from cumulet.kube.objects.write import Objects
from cumulet.kube.subresources.eviction import Evictions
from cumulet.kube.subresources.log import log
from cumulet.kube.subresources.proxy import Proxy
from cumulet.kube.subresources.scale import Scales
from cumulet.kube.subresources.streams import Streams
from cumulet.kube.subresources.token_requests import TokenRequests


class Subresources:
    """Handles every sub-resource but `status`, which is part of the object itself."""

    def __init__(
        self,
        objects: Objects,
        evictions: Evictions,
        authorizer: Authorizer,
        tokens: ServiceAccountTokens,
        authenticator: Authenticator,
        kubelet: Kubelet,
        proxy: Proxy,
    ) -> None:
        self._objects = objects
        self._scales = Scales(objects)
        self._evictions = evictions
        self._token_requests = TokenRequests(objects, tokens)
        self._authorizer = authorizer
        self._authenticator = authenticator
        self._kubelet = kubelet
        self._streams = Streams(kubelet)
        self._proxy = proxy

    async def handle(self, request: web.BaseRequest, user: User, target: Target) -> web.StreamResponse:
        """Answer a request on a sub-resource. Raises `ApiError`."""
        match target.subresource, target.verb:
            case "scale", "get":
                return await self._scales.get(request, target)
            case "scale", "update" | "patch":
                return await self._scales.change(request, user, target)
            case "binding", "create":
                binding = await part(request, "", "v1", "Binding")
                check_named(target.name, binding, "Binding")
                return await self.bind(request, user, target, binding)
            case "eviction", "create":
                return await self._evictions.evict(request, user, target)
            case "token", "create":
                return await self._token_requests.create(request, user, target)
            case "finalize", "update":
                return await self._finalize(request, target)
            case "proxy", _:
                await self._connect(request, user, target)
                return await self._proxy.handle(request, target)
            case "log", "get":
                pod = self._objects.get(target.row, target.namespace, target.name).load()
                return await log(self._kubelet, request, pod)
            case "exec" | "attach" | "portforward", "get" | "create":
                self._check_create(user, target)
                pod = self._objects.get(target.row, target.namespace, target.name).load()
                await self._connect(request, user, target)
                return await self._streams.handle(request, pod, target.subresource)
        raise method_not_allowed()

    async def _connect(self, request: web.BaseRequest, user: User, target: Target) -> None:
        """Let admission decide on a connection (operation CONNECT)."""
        options = _CONNECT_OPTIONS[target.subresource](request, target)
        await self._objects.admit(target, "CONNECT", options, None, WriteContext(user))

    def _check_create(self, user: User, target: Target) -> None:
        """Require `create`: WebSockets begin with GET, but need the same right as SPDY, which begins with POST."""
        plural, subresource = target.row.plural, target.subresource
        wanted = Attributes("create", "", plural, subresource, target.namespace, target.name)
        if target.verb != "create" and not self._authorizer.allows(user, wanted):
            what = f'resource "{plural}/{subresource}" in API group "" in the namespace "{target.namespace}"'
            raise forbidden("", plural, target.name, f'User "{user.name}" cannot create {what}')

    async def bind(self, request: web.BaseRequest, user: User, target: Target, binding: Object) -> web.Response:
        """Bind a pod to a node. Raises `ApiError` 400, 404 and 409."""
        binding = await self._objects.admit(target, "CREATE", binding, None, WriteContext.of(request, user))
        node = (binding.get("target") or {}).get("name")
        if not node:
            raise bad_request("target.name must name a node")
        uid = (binding.get("metadata") or {}).get("uid")

        def change(pod: Object) -> Object:
            if pod["spec"].get("nodeName"):
                why = f'pod {target.name} is already assigned to node "{pod["spec"]["nodeName"]}"'
                raise conflict("", "pods/binding", target.name, why)
            if pod["metadata"].get("deletionTimestamp"):
                raise conflict(
                    "",
                    "pods/binding",
                    target.name,
                    f"pod {target.name} is being deleted, cannot be assigned to a host",
                )
            if uid and uid != pod["metadata"]["uid"]:
                raise conflict("", "pods/binding", target.name, "the UID in the precondition does not match")
            pod["spec"]["nodeName"] = node
            conditions = [item for item in pod["status"].get("conditions") or () if item["type"] != "PodScheduled"]
            scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None}
            pod["status"]["conditions"] = [*conditions, {**scheduled, "lastTransitionTime": clock.rfc3339()}]
            return pod

        if dry_run(request):
            change(self._objects.get(BY_KEY["pods"], target.namespace, target.name).load())
        else:
            await self._objects.rewrite(BY_KEY["pods"], target.namespace, target.name, change)
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
        return encode(request, status, 201)

    async def _finalize(self, request: web.BaseRequest, target: Target) -> web.Response:
        body = await part(request, "", "v1", "Namespace")

        def change(namespace: Object) -> Object:
            finalizers = (body.get("spec") or {}).get("finalizers") or []
            namespace["spec"] = {"finalizers": finalizers} if finalizers else {}
            if causes := kinds.validate(target.row, namespace, None):
                raise invalid("", "Namespace", target.name, causes)
            return namespace

        if dry_run(request):
            made = change(self._objects.get(target.row, target.namespace, target.name).load())
        else:
            made = await self._objects.rewrite(target.row, target.namespace, target.name, change)
        return encode(request, whole(target.row, made))

    async def review(self, request: web.BaseRequest, user: User, target: Target, body: Object) -> web.Response:
        """Answer a review of authentication or authorization; nothing is stored."""
        check_plain(request)
        spec = body.get("spec") or {}
        match target.row.kind:
            case "SelfSubjectReview":
                status: Object = {"userInfo": user_info(user)}
            case "SelfSubjectAccessReview":
                status = {"allowed": self._authorizer.allows(user, _attributes(spec))}
            case "SubjectAccessReview" | "LocalSubjectAccessReview":
                other = User(spec.get("user", ""), tuple(spec.get("groups") or ()), spec.get("uid", ""))
                status = {"allowed": self._authorizer.allows(other, _attributes(spec))}
            case "SelfSubjectRulesReview":
                rules = list(self._authorizer.rules(user, spec.get("namespace", "")))
                if "system:masters" in user.groups:
                    rules.append({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]})
                    rules.append({"nonResourceURLs": ["*"], "verbs": ["*"]})
                status = {
                    "resourceRules": [rule for rule in rules if "resources" in rule],
                    "nonResourceRules": [rule for rule in rules if "nonResourceURLs" in rule],
                    "incomplete": False,
                }
            case _:
                status = await self._review_token(spec)
        reviewed = {"metadata": {}, "spec": spec}
        track(
            {},
            reviewed,
            kinds.shape(target.row),
            Manager(manager(request), target.row.api_version),
            keeps_status=False,
        )
        answer = {"kind": target.row.kind, "apiVersion": target.row.api_version, **reviewed}
        return encode(request, {**answer, "status": status}, 201)

    async def _review_token(self, spec: Object) -> Object:
        try:
            user = await self._authenticator.user_of(str(spec.get("token", "")), spec.get("audiences"))
        except TokenError as error:
            return {"authenticated": False, "error": str(error)}
        return {"authenticated": True, "user": user_info(user), "audiences": spec.get("audiences") or [AUDIENCE]}


def _stream_options(request: web.BaseRequest, target: Target) -> Object:
    """Return the `PodExecOptions`, `PodAttachOptions` or `PodPortForwardOptions` of a query."""
    query = request.query
    if target.subresource == "portforward":
        ports = [int(port) for port in query.getall("ports", []) if is_digits(port)]
        return {"ports": ports} if ports else {}
    options: Object = {name: True for name in _STREAMS if fold(query.get(name, "")) in ("1", "true")}
    if container := query.get("container"):
        options["container"] = container
    if target.subresource == "exec":
        options["command"] = query.getall("command", [])
    return options


def _proxy_options(request: web.BaseRequest, target: Target) -> Object:
    return {"path": target.path} if target.path else {}


_STREAMS = ("stdin", "stdout", "stderr", "tty")
_CONNECT_OPTIONS = {
    "attach": _stream_options,
    "exec": _stream_options,
    "portforward": _stream_options,
    "proxy": _proxy_options,
}


def _attributes(spec: Object) -> Attributes:
    attributes = spec.get("nonResourceAttributes") or spec.get("resourceAttributes") or {}
    return Attributes.about(attributes.get("verb", ""), attributes)

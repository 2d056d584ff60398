"""The `token` sub-resource of service accounts: tokens with an end, an audience and a bound object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from cumulet.common import clock
from cumulet.common.kubernetes.objects import Object
from cumulet.kube import schema
from cumulet.kube.access.users import AUDIENCE, ServiceAccountTokens, User
from cumulet.kube.apimachinery.status import Cause, bad_request, conflict, invalid
from cumulet.kube.catalog.resources import BY_KEY
from cumulet.kube.fields import Manager, shape_of, track
from cumulet.kube.http.body import manager, part
from cumulet.kube.http.negotiation import check_plain, encode
from cumulet.kube.http.request_info import Target
from cumulet.kube.http.write_context import WriteContext
from cumulet.kube.objects.write import Objects

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import BoundObjectReference, TokenRequestSpec

_GROUP, _KIND = "authentication.k8s.io", "TokenRequest"
_LEAST, _DEFAULT, _MOST = 600, 3600, 2**32
_BOUND = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}


class TokenRequests:
    """Issues tokens."""

    def __init__(self, objects: Objects, tokens: ServiceAccountTokens) -> None:
        self._objects = objects
        self._tokens = tokens

    async def create(self, request: web.BaseRequest, user: User, target: Target) -> web.Response:
        """Issue a token. Raises `ApiError` 400, 404, 409 and 422."""
        check_plain(request)
        body = await part(request, _GROUP, "v1", _KIND)
        body = await self._objects.admit(target, "CREATE", body, None, WriteContext.of(request, user))
        spec: TokenRequestSpec = body.get("spec") or {}
        account = self._objects.get(target.row, target.namespace, target.name).load()
        seconds = spec.get("expirationSeconds") or _DEFAULT
        if seconds < _LEAST:
            raise _refused(seconds, "may not specify a duration less than 10 minutes")
        if seconds > _MOST:
            raise _refused(seconds, "may not specify a duration larger than 2^32 seconds")
        audiences = spec.get("audiences") or [AUDIENCE]
        bound = spec.get("boundObjectRef")
        if bound is not None:
            self._check(target, bound)
        uid = account["metadata"]["uid"]
        token, ends = self._tokens.issue(target.namespace, target.name, uid, audiences, seconds, bound)
        metadata = {key: account["metadata"][key] for key in ("name", "namespace", "uid")}
        metadata["creationTimestamp"] = clock.rfc3339()
        issued = {"metadata": metadata, "spec": spec}
        definition = schema.definition(_GROUP, "v1", _KIND)
        assert definition is not None
        who = Manager(manager(request), f"{_GROUP}/v1", "token")
        track({}, issued, shape_of(definition), who, keeps_status=False)
        answer: Object = {
            "kind": _KIND,
            "apiVersion": f"{_GROUP}/v1",
            "metadata": issued["metadata"],
            "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": bound},
            "status": {"token": token, "expirationTimestamp": clock.from_epoch(ends)},
        }
        return encode(request, answer, 201)

    def _check(self, target: Target, bound: BoundObjectReference) -> None:
        """Check that the bound object exists, and that a pod uses this account. Raises `ApiError`."""
        kind, name = bound.get("kind", ""), bound.get("name", "")
        if kind not in _BOUND:
            raise bad_request(f"cannot bind token for serviceaccount {target.name!r} to object of kind {kind!r}")
        row = BY_KEY[_BOUND[kind]]
        obj = self._objects.get(row, target.namespace if row.namespaced else "", name).load()
        if bound.get("uid") and bound["uid"] != obj["metadata"]["uid"]:
            why = (
                f"the UID in the bound object reference ({bound['uid']}) does not match the UID in record. "
                "The object might have been deleted and then recreated"
            )
            raise conflict("", row.plural, name, why)
        bound["uid"] = obj["metadata"]["uid"]
        if kind == "Pod" and obj["spec"].get("serviceAccountName") != target.name:
            why = f"cannot bind token for serviceaccount {target.name!r} to pod running with different serviceaccount name."
            raise bad_request(why)


def _refused(seconds: int, why: str) -> Exception:
    cause = Cause("spec.expirationSeconds", "FieldValueInvalid", f"Invalid value: {seconds}: {why}")
    return invalid(_GROUP, _KIND, "", [cause])

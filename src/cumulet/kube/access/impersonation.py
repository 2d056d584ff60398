"""Impersonation, for callers that have the right (apiserver, `filters.WithImpersonation`)."""

from __future__ import annotations

from urllib.parse import unquote

from aiohttp import web

from cumulet.common.ascii import fold
from cumulet.kube.access.attributes import Attributes
from cumulet.kube.access.authorization import Authorizer
from cumulet.kube.access.users import User
from cumulet.kube.apimachinery.headers import readable
from cumulet.kube.apimachinery.status import bad_request, forbidden

_AUTHENTICATION = "authentication.k8s.io"
_ACCOUNT = "system:serviceaccount:"
_EXTRA = "impersonate-extra-"


def impersonated(request: web.BaseRequest, user: User, authorizer: Authorizer) -> User:
    """Return the user to continue as. Raises `ApiError` 400, and 403 where the caller lacks the right."""
    if not any(fold(key[:12]) == "impersonate-" for key in request.headers):
        return user
    for key, value in request.headers.items():
        if fold(key[:12]) == "impersonate-" and readable(value) != value:
            raise bad_request(f"the header {key} is not text")
    name = request.headers.get("Impersonate-User", "")
    groups = request.headers.getall("Impersonate-Group", [])
    uid = request.headers.get("Impersonate-Uid", "")
    extra = {
        fold(unquote(key[len(_EXTRA) :])): tuple(request.headers.getall(key))
        for key in request.headers
        if fold(key).startswith(_EXTRA)
    }
    if not name:
        if groups or uid or extra:
            raise bad_request("requested impersonation without impersonating a user")
        return user
    if name.startswith(_ACCOUNT) and name.count(":") == 3:
        namespace, account = name.removeprefix(_ACCOUNT).split(":")
        required = [Attributes("impersonate", "", "serviceaccounts", "", namespace, account)]
        groups = groups or ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
    else:
        required = [Attributes("impersonate", "", "users", name=name)]
    required += [Attributes("impersonate", "", "groups", name=group) for group in groups]
    if uid:
        required.append(Attributes("impersonate", _AUTHENTICATION, "uids", name=uid))
    required += [
        Attributes("impersonate", _AUTHENTICATION, "userextras", key, name=value)
        for key, values in extra.items()
        for value in values
    ]
    for attributes in required:
        if not authorizer.allows(user, attributes):
            where = f' in the namespace "{attributes.namespace}"' if attributes.namespace else " at the cluster scope"
            full = "/".join(filter(None, (attributes.resource, attributes.subresource)))
            why = f'User "{user.name}" cannot impersonate resource "{full}" in API group "{attributes.group}"{where}'
            raise forbidden(attributes.group, attributes.resource, attributes.name, why)
    shown = "system:unauthenticated" if name == "system:anonymous" else "system:authenticated"
    return User(name, tuple(dict.fromkeys([*groups, shown])), uid, tuple(extra.items()))

"""The options of a request, with upstream's checks of `CreateOptions`, `UpdateOptions`, `PatchOptions` and others."""

from __future__ import annotations

import re
from collections.abc import Mapping

from aiohttp import web

from cumulet.common.ascii import fold
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.status import ApiError, Cause, bad_request, invalid
from cumulet.kube.http.body import decoded, read
from cumulet.kube.schema import prune
from cumulet.kube.schema.validation.field_errors import forbidden, quoted, required, too_long, unsupported
from cumulet.kube.schema.validation.field_errors import invalid as invalid_value

_KINDS = {"POST": "CreateOptions", "PUT": "UpdateOptions", "PATCH": "PatchOptions"}
_POLICIES = ("Foreground", "Background", "Orphan", "nil")
_VALIDATIONS = ("", "Ignore", "Strict", "Warn")
_MATCHES = ("Exact", "NotOlderThan", "")
_SCHEME = "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27"
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")


def is_set(query: Mapping[str, str], name: str) -> bool:
    """Return whether a switch is on: it is present, and is neither "false" nor "0"."""
    return name in query and fold(query[name]) not in ("false", "0")


def whole_number(text: str) -> int:
    """Parse a number of the query; 0 where it is empty. Raises `ApiError` 400."""
    if not text:
        return 0
    if not _WHOLE.fullmatch(text):
        raise bad_request(f"strconv.ParseInt: parsing {quoted(text[:64])}: invalid syntax")
    return int(text)


def check_write(request: web.BaseRequest, *, is_apply: bool = False) -> None:
    """Check the options of a create, an update or a patch. Raises `ApiError` 422."""
    if not request.query_string and not is_apply:
        return
    query, kind = request.query, _KINDS.get(request.method, "UpdateOptions")
    causes: list[Cause] = []
    manager = query.get("fieldManager", "")
    if kind == "PatchOptions":
        if is_apply and not manager:
            causes.append(required("fieldManager", "is required for apply patch"))
        elif not is_apply and "force" in query:
            causes.append(forbidden("force", "may not be specified for non-apply patch"))
    if len(manager.encode()) > 128:
        causes.append(too_long("fieldManager", 128))
    causes += _dry_run([query["dryRun"]] if query.get("dryRun") else [])
    if query.get("fieldValidation", "") not in _VALIDATIONS:
        causes.append(unsupported("fieldValidation", query["fieldValidation"], _VALIDATIONS))
    if causes:
        raise invalid("meta.k8s.io", kind, "", causes)


def _dry_run(given: object) -> list[Cause]:
    return [] if given in (None, [], ["All"]) else [unsupported("dryRun", given, ["All"])]


def check_list(query: Mapping[str, str]) -> None:
    """Check the options of a list or a watch. Raises `ApiError` 400 and 422."""
    for name in ("limit", "timeoutSeconds"):
        whole_number(query.get(name, ""))
    match, version = query.get("resourceVersionMatch", ""), query.get("resourceVersion", "")
    causes: list[Cause] = []
    field = "resourceVersionMatch"
    if not is_set(query, "watch"):
        if match:
            if not version:
                causes.append(
                    forbidden(field, "resourceVersionMatch is forbidden unless resourceVersion is provided")
                )
            if query.get("continue"):
                causes.append(forbidden(field, "resourceVersionMatch is forbidden when continue is provided"))
            if match not in _MATCHES:
                causes.append(unsupported(field, match, _MATCHES, in_order=True))
            if match == "Exact" and version == "0":
                why = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
                causes.append(forbidden(field, why))
        if "sendInitialEvents" in query:
            causes.append(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    elif "sendInitialEvents" in query:
        if match != "NotOlderThan":
            why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            causes.append(forbidden(field, why))
        if query.get("continue"):
            causes.append(forbidden("continue", "sendInitialEvents is forbidden when continue is provided"))
    elif match:
        why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        causes.append(forbidden(field, why))
    if causes:
        raise invalid("meta.k8s.io", "ListOptions", "", causes)


async def delete_options(request: web.BaseRequest) -> Object:
    """Read `DeleteOptions` from the body, or from the query where there is no body. Raises `ApiError` 400 and 422."""
    raw = await read(request)
    if raw:
        options = await decoded(request.headers.get("Content-Type", ""), raw, "DeleteOptions", bare=True)
        kind, version = options.pop("kind", ""), options.pop("apiVersion", "")
        if kind not in ("", None, "DeleteOptions"):
            raise bad_request(f'no kind "{kind}" is registered for version "{version}" in scheme "{_SCHEME}"')
        prune(options, "", "v1", "DeleteOptions")
    else:
        options = _from_query(request.query)
    check_deletion(options)
    if "orphanDependents" in options:
        options["propagationPolicy"] = "Orphan" if options["orphanDependents"] else "Background"
    return options


def _from_query(query: Mapping[str, str]) -> Object:
    options: Object = {}
    if "gracePeriodSeconds" in query:
        options["gracePeriodSeconds"] = whole_number(query["gracePeriodSeconds"])
    if "propagationPolicy" in query:
        options["propagationPolicy"] = query["propagationPolicy"]
    if "orphanDependents" in query:
        options["orphanDependents"] = is_set(query, "orphanDependents")
    if query.get("dryRun"):
        options["dryRun"] = [query["dryRun"]]
    return options


def check_deletion(options: Object) -> None:
    """Check `DeleteOptions`. Raises `ApiError` 422."""
    causes: list[Cause] = []
    policy = options.get("propagationPolicy")
    if policy is not None and options.get("orphanDependents") is not None:
        why = "orphanDependents and deletionPropagation cannot be both set"
        causes.append(invalid_value("propagationPolicy", policy, why))
    if policy not in (None, *_POLICIES[:3]):
        causes.append(unsupported("propagationPolicy", policy, _POLICIES, in_order=True))
    causes += _dry_run(options.get("dryRun"))
    if causes:
        raise invalid("meta.k8s.io", "DeleteOptions", "", causes)


def check_named(name: str, body: Object, kind: str) -> None:
    """Check that the body of a sub-resource names its object. Raises `ApiError` 400."""
    if (body.get("metadata") or {}).get("name", "") != name:
        raise ApiError(400, "BadRequest", f"name in URL does not match name in {kind} object")

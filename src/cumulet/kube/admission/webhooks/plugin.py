"""Plug-ins MutatingAdmissionWebhook and ValidatingAdmissionWebhook."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.access.authorization import Authorizer
from cumulet.kube.admission.cel_authorizer import checking
from cumulet.kube.admission.programs import conditions, holds
from cumulet.kube.admission.webhooks.call import ask
from cumulet.kube.admission.webhooks.review import (
    AdmissionRequest,
    from_version,
    in_version,
    is_selected,
    matching_row,
    review,
)
from cumulet.kube.apimachinery.status import ApiError, bad_request
from cumulet.kube.catalog.custom_conversion import Conversions
from cumulet.kube.catalog.resources import Row
from cumulet.kube.cel import PER_CONDITIONS, CelError, admission_variables
from cumulet.kube.cel.patience import within
from cumulet.kube.clients.webhooks import CallError, WebhookClient
from cumulet.kube.patch import json_patch
from cumulet.kube.patch.json_patch import JsonPatchError
from cumulet.kube.store import Store

log = logging.getLogger(__name__)


_GROUP = "admissionregistration.k8s.io"
_MUTATING = f"mutatingwebhookconfigurations.{_GROUP}"
_VALIDATING = f"validatingwebhookconfigurations.{_GROUP}"
#: Webhooks that saw these writes could make their own removal impossible.
_EXEMPT = frozenset(
    f"{name}.{_GROUP}"
    for name in (
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
        "mutatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "validatingwebhookconfigurations",
    )
)


class _Matched(NamedTuple):
    webhook: Object
    #: The form of the write that the webhook matches, and the write in that form.
    row: Row
    request: AdmissionRequest


class Webhooks:
    """The webhooks of every configuration, in the order of the configurations' names."""

    def __init__(self, store: Store, client: WebhookClient, conversions: Conversions) -> None:
        self._store = store
        self._client = client
        self._conversions = conversions
        self._authorizer = Authorizer(store)
        self._mutating: list[Object] = []
        self._validating: list[Object] = []
        #: The served resources, to match other versions.
        self.rows: Callable[[], Iterable[Row]] = tuple
        for key in (_MUTATING, _VALIDATING):
            store.on_change(key, self._refresh)
        self._refresh()

    def _refresh(self) -> None:
        self._mutating = self._read(_MUTATING)
        self._validating = self._read(_VALIDATING)

    def _read(self, key: str) -> list[Object]:
        return [webhook for stored in self._store.list(key) for webhook in stored.load().get("webhooks") or ()]

    @property
    def mutate(self) -> bool:
        """Return whether any webhook changes objects."""
        return bool(self._mutating)

    async def change(
        self, request: AdmissionRequest, warnings: list[str], complete: Callable[[Object], None]
    ) -> Object | None:
        """Return the object as the webhooks change it; `complete` runs after each patch. Raises `ApiError`."""
        if request.row.key in _EXEMPT:
            return request.obj
        last = -1
        for index, webhook in enumerate(self._mutating):
            changed = await self._one(webhook, request, warnings, complete)
            if changed != request.obj:
                request, last = request._replace(obj=changed), index
        # Reinvoke the webhooks whose object later webhooks changed.
        for webhook in self._mutating[: max(last, 0)]:
            if webhook.get("reinvocationPolicy") == "IfNeeded":
                request = request._replace(obj=await self._one(webhook, request, warnings, complete))
        return request.obj

    async def check(self, request: AdmissionRequest, warnings: list[str]) -> None:
        """Call the validating webhooks, all at once. Raises `ApiError`."""
        if not self._validating or request.row.key in _EXEMPT:
            return
        matches = [
            match for webhook in self._validating if (match := await self._match(webhook, request)) is not None
        ]
        await asyncio.gather(*(self._call(match, review(match.request, match.row), warnings) for match in matches))

    async def _match(self, webhook: Object, request: AdmissionRequest) -> _Matched | None:
        row = matching_row(webhook, request, self.rows())
        if row is None or not is_selected(webhook, request, self._store):
            return None
        if request.dry_run and webhook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            raise bad_request(f'admission webhook "{webhook["name"]}" does not support dry run')
        request = await in_version(self._conversions, request, row)
        if expressions := conditions(webhook):
            check = checking(self._authorizer, request.user)
            variables = admission_variables.variables(review(request, row)["request"], None, check)
            try:
                if not await within(PER_CONDITIONS, lambda budget: holds(expressions, variables, budget)):
                    return None
            except CelError as error:
                if webhook.get("failurePolicy") == "Ignore":
                    return None
                why = f'admission webhook "{webhook["name"]}": match condition failed: {error}'
                raise ApiError(403, "Forbidden", why, {}) from None
        return _Matched(webhook, row, request)

    async def _one(
        self, webhook: Object, request: AdmissionRequest, warnings: list[str], complete: Callable[[Object], None]
    ) -> Object | None:
        matched = await self._match(webhook, request)
        if matched is None:
            return request.obj
        document = review(matched.request, matched.row)
        response = await self._call(matched, document, warnings)
        patch = response.get("patch")
        if not patch or request.obj is None:
            return request.obj
        name = webhook["name"]
        if response.get("patchType") != "JSONPatch":
            raise _failed(name, f"invalid patch type {response.get('patchType')!r}")
        try:
            operations = msgspec.json.decode(base64.b64decode(patch))
            patched = json_patch(document["request"]["object"], operations)
            whole = request.kind is None
            if not isinstance(patched, dict) or (whole and not isinstance(patched.get("metadata"), dict)):
                raise _failed(name, "the patched value is not an object")
        except (JsonPatchError, msgspec.DecodeError, binascii.Error, RecursionError, TypeError, ValueError) as error:
            raise _failed(name, f"the patch cannot be applied: {error}") from None
        for key in ("kind", "apiVersion"):
            patched.pop(key, None)
        return await from_version(self._conversions, request, matched.row, patched, complete)

    async def _call(self, matched: _Matched, document: Object, warnings: list[str]) -> Object:
        webhook = matched.webhook
        name = webhook["name"]
        try:
            response = await ask(self._client, webhook, document)
        except CallError as error:
            if webhook.get("failurePolicy") == "Ignore":
                log.warning("ignored the failure of webhook %s: %s", name, error)
                return {"allowed": True}
            raise _failed(name, str(error)) from None
        texts, status = response.get("warnings"), response.get("status")
        warnings += [str(text) for text in texts] if isinstance(texts, list) else []
        if not response["allowed"]:
            raise _denied(name, status if isinstance(status, dict) else {})
        return response


def _failed(name: str, why: str) -> ApiError:
    text = f'failed calling webhook "{name}": {why}'
    return ApiError(500, "InternalError", f"Internal error occurred: {text}", {"causes": [{"message": text}]})


def _denied(name: str, status: Object) -> ApiError:
    denied = f'admission webhook "{name}" denied the request'
    why = status.get("message") or status.get("reason")
    code = status.get("code")
    error = ApiError(
        code if isinstance(code, int) and 400 <= code < 600 else 400,
        str(status.get("reason") or ""),
        f"{denied}: {why}" if why else f"{denied} without explanation",
    )
    error.details = status["details"] if isinstance(status.get("details"), dict) else None
    return error

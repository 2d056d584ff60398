"""Plug-ins MutatingAdmissionWebhook and ValidatingAdmissionWebhook."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from cumulet.kube.access.authorization import Authorizer
from cumulet.kube.admission.cel_authorizer import checking
from cumulet.kube.admission.programs import conditions, holds
from cumulet.kube.admission.webhooks.call import ask
from cumulet.kube.admission.webhooks.review import Question, from_version, in_version, is_selected, review, wanted_as
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

Object = dict[str, Any]

_GROUP = "admissionregistration.k8s.io"
_MUTATING = f"mutatingwebhookconfigurations.{_GROUP}"
_VALIDATING = f"validatingwebhookconfigurations.{_GROUP}"
#: Writes that webhooks could otherwise make impossible for good.
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


class _Wanted(NamedTuple):
    webhook: Object
    #: The form that it wants to see, and the question in that.
    row: Row
    question: Question


class Webhooks:
    """The webhooks of every configuration, by the names of configurations."""

    def __init__(self, store: Store, client: WebhookClient, conversions: Conversions) -> None:
        self._store = store
        self._client = client
        self._conversions = conversions
        self._authorizer = Authorizer(store)
        self._mutating: list[Object] = []
        self._validating: list[Object] = []
        #: What is served, for kinds that have several versions.
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
        """Whether there is any that changes objects."""
        return bool(self._mutating)

    async def change(
        self, question: Question, warnings: list[str], complete: Callable[[Object], None]
    ) -> Object | None:
        """The object as the webhooks want it; `complete` makes whole what one has patched. Raises `ApiError`."""
        if question.row.key in _EXEMPT:
            return question.obj
        last = -1
        for index, webhook in enumerate(self._mutating):
            found = await self._one(webhook, question, warnings, complete)
            if found != question.obj:
                question, last = question._replace(obj=found), index
        # Those that want to see again what others have changed after them.
        for webhook in self._mutating[: max(last, 0)]:
            if webhook.get("reinvocationPolicy") == "IfNeeded":
                question = question._replace(obj=await self._one(webhook, question, warnings, complete))
        return question.obj

    async def check(self, question: Question, warnings: list[str]) -> None:
        """Ask those that may refuse, all at once. Raises `ApiError`."""
        if not self._validating or question.row.key in _EXEMPT:
            return
        wanted = [
            found for webhook in self._validating if (found := await self._wants(webhook, question)) is not None
        ]
        await asyncio.gather(*(self._ask(found, review(found.question, found.row), warnings) for found in wanted))

    async def _wants(self, webhook: Object, question: Question) -> _Wanted | None:
        row = wanted_as(webhook, question, self.rows())
        if row is None or not is_selected(webhook, question, self._store):
            return None
        if question.dry_run and webhook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            raise bad_request(f'admission webhook "{webhook["name"]}" does not support dry run')
        question = await in_version(self._conversions, question, row)
        if expressions := conditions(webhook):
            check = checking(self._authorizer, question.user)
            variables = admission_variables.variables(review(question, row)["request"], None, check)
            try:
                if not await within(PER_CONDITIONS, lambda budget: holds(expressions, variables, budget)):
                    return None
            except CelError as error:
                if webhook.get("failurePolicy") == "Ignore":
                    return None
                why = f'admission webhook "{webhook["name"]}": match condition failed: {error}'
                raise ApiError(403, "Forbidden", why, {}) from None
        return _Wanted(webhook, row, question)

    async def _one(
        self, webhook: Object, question: Question, warnings: list[str], complete: Callable[[Object], None]
    ) -> Object | None:
        wanted = await self._wants(webhook, question)
        if wanted is None:
            return question.obj
        asked = review(wanted.question, wanted.row)
        response = await self._ask(wanted, asked, warnings)
        patch = response.get("patch")
        if not patch or question.obj is None:
            return question.obj
        name = webhook["name"]
        if response.get("patchType") != "JSONPatch":
            raise _failed(name, f"invalid patch type {response.get('patchType')!r}")
        try:
            operations = msgspec.json.decode(base64.b64decode(patch))
            found = json_patch(asked["request"]["object"], operations)
            whole = question.kind is None
            if not isinstance(found, dict) or (whole and not isinstance(found.get("metadata"), dict)):
                raise _failed(name, "what the patch makes is not an object")
        except (JsonPatchError, msgspec.DecodeError, binascii.Error, RecursionError, TypeError, ValueError) as error:
            raise _failed(name, f"the patch cannot be applied: {error}") from None
        for key in ("kind", "apiVersion"):
            found.pop(key, None)
        return await from_version(self._conversions, question, wanted.row, found, complete)

    async def _ask(self, wanted: _Wanted, asked: Object, warnings: list[str]) -> Object:
        webhook = wanted.webhook
        name = webhook["name"]
        try:
            response = await ask(self._client, webhook, asked)
        except CallError as error:
            if webhook.get("failurePolicy") == "Ignore":
                log.warning("webhook %s was left out: %s", name, error)
                return {"allowed": True}
            raise _failed(name, str(error)) from None
        said, status = response.get("warnings"), response.get("status")
        warnings += [str(text) for text in said] if isinstance(said, list) else []
        if not response["allowed"]:
            raise _denied(name, status if isinstance(status, dict) else {})
        return response


def _failed(name: str, why: str) -> ApiError:
    text = f'failed calling webhook "{name}": {why}'
    return ApiError(500, "InternalError", f"Internal error occurred: {text}", {"causes": [{"message": text}]})


def _denied(name: str, status: Object) -> ApiError:
    denied = f'admission webhook "{name}" denied the request'
    said = status.get("message") or status.get("reason")
    code = status.get("code")
    error = ApiError(
        code if isinstance(code, int) and 400 <= code < 600 else 400,
        str(status.get("reason") or ""),
        f"{denied}: {said}" if said else f"{denied} without explanation",
    )
    details = status.get("details")
    error.details = details if isinstance(details, dict) else None
    return error

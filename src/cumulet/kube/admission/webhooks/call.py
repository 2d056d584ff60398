"""Calls of an admission webhook: send a review, and check the response."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.clients.webhooks import CallError, WebhookClient

_TIMEOUT = 10


async def ask(client: WebhookClient, webhook: Object, review: Object) -> Object:
    """Send an `AdmissionReview` and return its response. Raises `CallError`."""
    if "v1" not in (webhook.get("admissionReviewVersions") or ()):
        raise CallError("webhook does not accept known AdmissionReview versions (v1)")
    try:
        answer = await client.post(
            webhook.get("clientConfig") or {}, review, webhook.get("timeoutSeconds") or _TIMEOUT
        )
    except CallError as error:
        raise CallError(f"failed to call webhook: {error}") from None
    response = answer.get("response")
    if not isinstance(response, dict) or not isinstance(response.get("allowed"), bool):
        raise CallError("received invalid webhook response: webhook response was absent or has no field allowed")
    uid = review["request"]["uid"]
    if response.get("uid") != uid:
        why = f"expected response.uid={uid!r}, got {response.get('uid')!r}"
        raise CallError(f"received invalid webhook response: {why}")
    return response

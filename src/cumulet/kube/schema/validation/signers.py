"""Validation of the names of certificate signers (core, `ValidateSignerName`)."""

from __future__ import annotations

from cumulet.kube.apimachinery import name_formats
from cumulet.kube.schema.validation.field_errors import Causes, all_invalid, invalid, required, too_long

_DOMAIN, _WHOLE = 253, 253 + 1 + 253 + 63 + 1


def is_kubernetes_signer(name: str) -> bool:
    """Whether a signer is one of Kubernetes' own."""
    host = name.partition("/")[0]
    return host == "kubernetes.io" or host.endswith(".kubernetes.io")


def signer_name(name: str, field: str) -> Causes:
    """Validate the name of a signer."""
    if not name:
        yield required(field)
        return
    parts = name.split("/")
    if len(parts) != 2:
        why = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        yield invalid(field, name, why)
        return
    domain, path = parts
    if len(domain) > _DOMAIN:
        yield too_long(field, _DOMAIN)
    yield from _labels(domain, field, name_formats.dns_label)
    if "." not in domain:
        yield invalid(field, domain, "should be a domain with at least two segments separated by dots")
    yield from _labels(path, field, name_formats.dns_subdomain)
    if len(name) > _WHOLE:
        yield too_long(field, _WHOLE)


def _labels(text: str, field: str, form) -> Causes:  # type: ignore[no-untyped-def]
    for label in text.split("."):
        if messages := form(label):
            yield from all_invalid(field, text, (f'validating label "{label}": {message}' for message in messages))
            return

"""Checks of the properties that only pods have: exact resources, security context, names and aliases."""

from __future__ import annotations

import ipaddress
import re

from cumulet.common.arm import ArmError
from cumulet.common.kubernetes.quantity import decimal
from cumulet.instances.model.pod import PodSecurityContext, Quantities, ResourceRequirements
from cumulet.instances.model.properties import GroupProperties
from cumulet.instances.security.sysctls import SysctlError, check_sysctl
from cumulet.instances.validation.text import invalid, quoted

#: A DNS subdomain, as Kubernetes' host names are.
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*")
#: Linux's longest host name.
_HOSTNAME = 64
_ALIASES, _NAMES, _SYSCTLS = 1000, 100, 100
_QUANTITY, _LARGEST = 32, 2**63
_IDS = 2**31


def check_pod(group: str, properties: GroupProperties) -> None:
    """Raise `ArmError` for a property of the whole group that is not valid; `group` is its name."""
    if properties.security_context is not None:
        _check_security(properties.security_context, "properties.securityContext")
    if (subdomain := properties.subdomain) is not None:
        if not _NAME.fullmatch(subdomain):
            raise invalid("properties.subdomain", f"The subdomain '{quoted(subdomain)}' is not a domain name.")
        name = f"{properties.hostname or group}.{subdomain}"
        if properties.set_hostname_as_fqdn and len(name) > _HOSTNAME:
            raise invalid(
                "properties.setHostnameAsFQDN",
                f"The name {quoted(name)} is too long for a host name: {len(name)} characters, of at most {_HOSTNAME}.",
            )
    if len(properties.host_aliases) > _ALIASES:
        raise invalid("properties.hostAliases", f"A container group has at most {_ALIASES} host aliases.")
    for number, alias in enumerate(properties.host_aliases):
        path = f"properties.hostAliases[{number}]"
        try:
            if "%" in alias.ip:
                raise ValueError(alias.ip)
            alias.ip = str(ipaddress.ip_address(alias.ip))
        except ValueError:
            raise invalid(f"{path}.ip", f"The address '{quoted(alias.ip)}' is not an IP address.") from None
        if len(alias.hostnames) > _NAMES or not all(_NAME.fullmatch(name) for name in alias.hostnames):
            raise invalid(f"{path}.hostnames", f"The host names of {alias.ip} are not at most {_NAMES} domain names.")


def check_requirements(container: str, required: ResourceRequirements, path: str) -> None:
    """Raise `ArmError` for quantities of a container that are not valid, or limits below requests."""
    for kind, amounts in (("requests", required.requests), ("limits", required.limits)):
        for name, text in (
            ("cpu", amounts.cpu),
            ("memory", amounts.memory),
            ("ephemeral-storage", amounts.ephemeral_storage),
        ):
            if text is not None and not _is_amount(text):
                raise invalid(
                    f"{path}.{kind}.{name}",
                    f"The {name} '{quoted(text)}' in the {kind} of container '{container}' is not a quantity.",
                )
    for name, request, limit in _pairs(required.requests, required.limits):
        if request is not None and limit is not None and limit < request:
            raise ArmError(
                400,
                "ResourceLimitsLessThanRequests",
                f"The {name} limit of container '{container}' must be greater than or equal to the request.",
                target=f"{path}.limits.{name}",
            )


def _pairs(requests: Quantities, limits: Quantities) -> tuple[tuple[str, int | None, int | None], ...]:
    return (
        ("cpu", requests.millicores, limits.millicores),
        ("memory", requests.bytes, limits.bytes),
    )


def _is_amount(text: str) -> bool:
    """Return whether a quantity is from 0 to 2**63 - 1."""
    if len(text) > _QUANTITY:
        return False
    try:
        return 0 <= decimal(text) < _LARGEST
    except (ValueError, ArithmeticError):
        return False


def _check_security(context: PodSecurityContext, path: str) -> None:
    if context.fs_group is not None and not 0 <= context.fs_group < _IDS:
        raise invalid(f"{path}.fsGroup", f"{context.fs_group} is not an id from 0 to {_IDS - 1}.")
    if len(context.sysctls) > _SYSCTLS:
        raise invalid(f"{path}.sysctls", f"A container group has at most {_SYSCTLS} sysctls.")
    for number, sysctl in enumerate(context.sysctls):
        try:
            check_sysctl(sysctl.name, sysctl.value)
        except SysctlError as error:
            raise ArmError(
                400, "InvalidSecurityContext", f"{quoted(str(error))}.", target=f"{path}.sysctls[{number}]"
            ) from None

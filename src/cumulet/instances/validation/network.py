"""Checks of a group's network: address, subnets, DNS, and the credentials of registries."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from cumulet.common.arm import ArmError
from cumulet.common.image_patterns import Pattern
from cumulet.instances.model.envelope import is_identity
from cumulet.instances.model.properties import SUBNET, Credential, DnsConfig, IpAddress, SubnetId
from cumulet.instances.validation.text import CONTROL, invalid, quoted

_SERVER = re.compile(r"(?=.{1,255}\Z)(?:[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?")
_SEARCH = re.compile(
    r"(?=.{1,253}\Z)(?:\.|[A-Za-z0-9_](?:[-A-Za-z0-9_]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[-A-Za-z0-9_]*[A-Za-z0-9_])?)*\.?)"
)
_OPTION = re.compile(r"[a-z][-_a-z0-9]{0,31}(:[0-9]{1,5})?")
#: ACI's rule of DNS name labels.
_LABEL = re.compile(r"[a-z][-a-z0-9]{3,61}[a-z0-9]")
_PORTS = 1000
_SERVERS, _SEARCHES, _OPTIONS = 3, 32, 32
#: Patterns of the images that a credential is for.
_PATTERNS = 100
#: Characters of a user name or password.
_LONGEST = 64 * 1024


def check_dns(config: DnsConfig) -> None:
    """Raise `ArmError` for a value that is not valid; write addresses in their normal form."""
    path = "properties.dnsConfig"
    if not 0 < len(config.name_servers) <= _SERVERS:
        raise invalid(f"{path}.nameServers", f"A dnsConfig has 1 to {_SERVERS} name servers.")
    for number, server in enumerate(config.name_servers):
        try:
            # The scope of an IPv6 address can be any text, including line feeds.
            if "%" in server:
                raise ValueError(server)
            config.name_servers[number] = str(ipaddress.ip_address(server.strip(" ")))
        except ValueError:
            raise invalid(
                f"{path}.nameServers[{number}]", f"The name server '{quoted(server)}' is not an IP address."
            ) from None
    domains = (config.search_domains or "").split(" ")
    if len(domains) > _SEARCHES or not all(not name or _SEARCH.fullmatch(name) for name in domains):
        raise invalid(
            f"{path}.searchDomains",
            f"The search domains '{quoted(config.search_domains or '')}' are not at most {_SEARCHES} domain names, separated by "
            "spaces.",
        )
    options = (config.options or "").split(" ")
    if len(options) > _OPTIONS or not all(not option or _OPTION.fullmatch(option) for option in options):
        raise invalid(
            f"{path}.options",
            f"The options '{quoted(config.options or '')}' are not at most {_OPTIONS} options, separated by spaces, such as "
            "ndots:5.",
        )


def check_address(group: str, address: IpAddress) -> None:
    """Raise `ArmError` for ports or a DNS name label that is not valid."""
    path = "properties.ipAddress"
    if len(address.ports) > _PORTS:
        raise invalid(f"{path}.ports", f"A container group has at most {_PORTS} ports.")
    label = address.dns_name_label
    if label is None:
        return
    if not _LABEL.fullmatch(label):
        raise ArmError(
            400,
            "InvalidDnsNameLabel",
            f"The DNS name label '{quoted(label)}' in container group '{group}' is invalid. It can contain only lowercase "
            "letters, numbers and hyphens. The first character must be a letter. The last character must be a letter or "
            "number. The value must be between 5 and 63 characters long.",
            target=f"{path}.dnsNameLabel",
        )
    if address.type != "Public":
        raise invalid(
            f"{path}.dnsNameLabel",
            f"The DNS name label '{label}' in container group '{group}' needs an IP address of the type Public.",
        )


def check_subnets(subnets: Sequence[SubnetId]) -> None:
    """Raise `ArmError` unless there is at most one subnet, named by its resource id."""
    if len(subnets) > 1:
        raise invalid("properties.subnetIds", "A container group is in at most one subnet.")
    for number, subnet in enumerate(subnets):
        if not SUBNET.fullmatch(subnet.id):
            raise invalid(
                f"properties.subnetIds[{number}].id", f"'{quoted(subnet.id)}' is not the resource id of a subnet."
            )


def check_credential(group: str, credential: Credential, path: str) -> None:
    """Raise `ArmError` for a server name, user name or password that is not valid."""
    if not _SERVER.fullmatch(credential.server):
        raise ArmError(
            400,
            "InvalidImageRegistryServer",
            f"The server '{quoted(credential.server)}' in the 'imageRegistryCredentials' of container group '{group}' is invalid. "
            "It should be a valid host name without protocol.",
            target=f"{path}.server",
        )
    if credential.identity is not None and not is_identity(credential.identity):
        raise ArmError(
            400,
            "InvalidImageRegistryCredentialIdentity",
            f"The identity '{quoted(credential.identity)}' for '{credential.server}' in container group '{group}' is invalid. It "
            "must be the resource id of a user-assigned identity of the group, or 'system' for its own.",
            target=f"{path}.identity",
        )
    if credential.identity is not None and (credential.username or credential.password):
        raise invalid(
            f"{path}.identity",
            f"The credential for '{credential.server}' has both an identity and a user name or password.",
        )
    for name, text in (("username", credential.username), ("password", credential.password or "")):
        if len(text) > _LONGEST or CONTROL.search(text):
            raise invalid(
                f"{path}.{name}", f"The {name} for '{credential.server}' has control characters or is too long."
            )
    if len(credential.match_images) > _PATTERNS:
        raise invalid(f"{path}.matchImages", f"A credential has at most {_PATTERNS} patterns of images.")
    for number, text in enumerate(credential.match_images):
        if CONTROL.search(text) or Pattern.parse(text) is None:
            raise invalid(
                f"{path}.matchImages[{number}]",
                f"'{quoted(text)}' is not a pattern of images, such as registry.example/team.",
            )

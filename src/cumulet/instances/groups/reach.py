"""The doors of the router that a group may connect to.

Each group reaches the metadata service. A group with a managed identity, or with a federated token (`AZURE_FEDERATED_TOKEN_FILE`,
which Microsoft's libraries read), also reaches the token endpoint and Azure Resource Manager. The doors ask for credentials
themselves: this only keeps everybody else away from them.
"""

from __future__ import annotations

import ipaddress

from cumulet.common import doors
from cumulet.common.config import Config
from cumulet.instances.sandbox.firewall import Door
from cumulet.instances.store.records import GroupRecord

_FEDERATED = "AZURE_FEDERATED_TOKEN_FILE"


def reached_doors(config: Config, record: GroupRecord) -> list[Door]:
    """Return the doors of a group."""
    addresses = [doors.METADATA]
    if record.given_identity is not None or _is_federated(record):
        addresses += [doors.door(config, room) for room in doors.PORTS]
    return [Door(ipaddress.IPv4Address(address.host), address.port) for address in addresses]


def _is_federated(record: GroupRecord) -> bool:
    variables = (item for one in record.properties.all_containers for item in one.properties.environment_variables)
    return any(item.name == _FEDERATED for item in variables)

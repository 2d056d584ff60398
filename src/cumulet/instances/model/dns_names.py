"""The DNS names of groups: `LABEL.REGION.azurecontainer.io`, with a hash of the scope of the label unless that is the region.

Source: Azure Container Instances, "Reuse DNS names".
"""

from __future__ import annotations

import hashlib

from cumulet.common.arm import ResourceId
from cumulet.common.ascii import fold
from cumulet.instances.model.properties import IpAddress

#: The zone of all groups' names.
ZONE = "azurecontainer.io"

_DIGITS = 15


def domain_name(address: IpAddress | None, resource_id: str, location: str) -> str | None:
    """Return the DNS name of a group in lower case, `None` if it has no label. Groups of the same name exclude each other."""
    if address is None or address.dns_name_label is None:
        return None
    resource = ResourceId(resource_id)
    scopes = {
        "TenantReuse": f"tenant of {resource.subscription}",  # a tenant has one subscription here
        "SubscriptionReuse": resource.subscription,
        "ResourceGroupReuse": f"{resource.subscription}/{resource.resource_group}",
        "Noreuse": resource_id,
    }
    label = fold(address.dns_name_label)
    scope = scopes.get(address.auto_generated_domain_name_label_scope or "")
    if scope is not None:
        label += f".{hashlib.sha256(fold(scope).encode()).hexdigest()[:_DIGITS]}"
    return f"{label}.{location}.{ZONE}"

"""Azure's regions, and the location of a resource in a request.

Source: Azure's "List of Azure regions" (public cloud). Azure Resource Manager accepts a name or a display name, in any
case: `East US` is `eastus`.
"""

from __future__ import annotations

from collections.abc import Mapping

from cumulet.common.arm import ArmError
from cumulet.common.ascii import fold

#: Display names by name.
REGIONS: dict[str, str] = {
    fold(display.replace(" ", "")): display
    for display in (
        "East US",
        "East US 2",
        "South Central US",
        "West US",
        "West US 2",
        "West US 3",
        "Central US",
        "North Central US",
        "West Central US",
        "Canada Central",
        "Canada East",
        "Mexico Central",
        "Brazil South",
        "Brazil Southeast",
        "Chile Central",
        "North Europe",
        "West Europe",
        "UK South",
        "UK West",
        "France Central",
        "France South",
        "Germany West Central",
        "Germany North",
        "Switzerland North",
        "Switzerland West",
        "Norway East",
        "Norway West",
        "Sweden Central",
        "Poland Central",
        "Italy North",
        "Spain Central",
        "Austria East",
        "Belgium Central",
        "Denmark East",
        "Israel Central",
        "Qatar Central",
        "UAE North",
        "UAE Central",
        "South Africa North",
        "South Africa West",
        "Central India",
        "South India",
        "West India",
        "Jio India West",
        "Jio India Central",
        "East Asia",
        "Southeast Asia",
        "Japan East",
        "Japan West",
        "Korea Central",
        "Korea South",
        "Indonesia Central",
        "Malaysia West",
        "Australia East",
        "Australia Southeast",
        "Australia Central",
        "Australia Central 2",
        "New Zealand North",
    )
}


def read_location(body: Mapping[str, object], kind: str, existing: str | None = None) -> str:
    """Return the region in the `location` of a request for a resource of type `kind`, as `checked_location` does."""
    return checked_location(body.get("location"), kind, existing)


def checked_location(given: object, kind: str, existing: str | None = None) -> str:
    """Return the name of the region that a `location` property names, for a resource of type `kind`.

    A resource cannot move: `existing` is its region, which a request may leave out. Raises `ArmError`:
    400 `LocationRequired`, 400 `LocationNotAvailableForResourceType`, 409 `InvalidResourceLocation`.
    """
    if given is None and existing is not None:
        return existing
    if not isinstance(given, str) or not given:
        raise ArmError(
            400, "LocationRequired", "The location property is required for this definition.", target="location"
        )
    location = fold(given.replace(" ", ""))
    if existing is not None and location != fold(existing.replace(" ", "")):
        raise ArmError(
            409,
            "InvalidResourceLocation",
            f"The resource already exists in location '{existing}'. A resource with the same name cannot be created in "
            "another location.",
            target="location",
        )
    if existing is None and location not in REGIONS:
        shown = given[:100].encode("unicode_escape").decode()
        group = kind == "Microsoft.Resources/resourceGroups"
        raise ArmError(
            400,
            "LocationNotAvailableForResourceGroup" if group else "LocationNotAvailableForResourceType",
            f"The provided location '{shown}' is not available for resource {'group' if group else f'type {kind!r}'}. List of "
            f"available regions is '{','.join(REGIONS)}'.",
            target="location",
        )
    return existing if existing is not None else location

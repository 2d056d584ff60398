"""Makes `instances/model/prices.json`: python scripts/make_prices.py FILE... [--date "October 2026"] [--check].

Each `FILE` has an answer of Azure's retail price API, as curl writes it, for one region or several:

    https://prices.azure.com/api/retail/prices?$filter=serviceName eq 'Container Instances' and armRegionName eq 'eastus'
    and priceType eq 'Consumption'

Regions are in the order of the files; a region without prices of its own has those of the first (`docs/instances.md`). The
maximum of a group is that of ACI's documented resource availability, and is kept in the file where it is there.

With `--check` it writes nothing, and fails when the file is not up to date.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[1] / "src" / "cumulet" / "instances" / "model" / "prices.json"

#: A group's maximum in most regions: vCPUs and decimal gigabytes.
_MAXIMUM = {"vcpu": 4, "gb": 16}
_UNITS = ("1 Hour", "1 GB Hour")
_PRODUCT, _SKUS = "Container Instances", {"Standard": "regular", "Standard Spot": "spot"}
#: The meters of Linux, by the end of their names.
_METERS = {"vCPU Duration": "vcpuHour", "Memory Duration": "gbHour"}


def main(arguments: list[str]) -> int:
    """Write the file, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--date", help="month and year of the prices; by default those of the file")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args(arguments)
    before = json.loads(TARGET.read_text())
    items = [item for file in given.files for item in json.loads(file.read_text())["Items"]]
    source = before["source"]
    if given.date:
        source = f"Azure retail prices and quotas, container instances, Linux, {given.date}"
    made = {"source": source, "currency": _currency(items), "regions": _regions(items, before["regions"])}
    if given.check:
        return 0 if made == before else 1
    TARGET.write_text(json.dumps(made, indent=2) + "\n")
    return 0


def _currency(items: Iterable[Mapping[str, Any]]) -> str:
    (currency,) = {item["currencyCode"] for item in items}
    return str(currency)


def _regions(items: Iterable[Mapping[str, Any]], before: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in items:
        meter = str(item["meterName"])
        kind = next((name for end, name in _METERS.items() if meter.endswith(end)), None)
        # GPUs and confidential containers have products or SKUs of their own, and Windows has a meter.
        if kind is None or item["productName"] != _PRODUCT or item["skuName"] not in _SKUS:
            continue
        if item["unitOfMeasure"] not in _UNITS:
            raise SystemExit(f"{meter} is sold by {item['unitOfMeasure']}: say here how that becomes an hour")
        region = found.setdefault(item["armRegionName"], {"regular": {}, "spot": {}})
        region[_SKUS[item["skuName"]]][kind] = item["retailPrice"]
    for name, region in found.items():
        if lacking := [part for part in _SKUS.values() if set(region[part]) != set(_METERS.values())]:
            raise SystemExit(f"{name} has no {' and '.join(lacking)} prices: ask for all meters of the region")
        region["maximum"] = before.get(name, {}).get("maximum", _MAXIMUM)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

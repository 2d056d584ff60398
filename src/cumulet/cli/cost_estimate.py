"""The estimated cost of manifests on a virtual node, from the price sheet and without a running room.

Each pod becomes a container group with the requests of its containers. A workload is counted with its replicas, a Job with
its parallelism, a CronJob for one hour of one run. A month has 730 hours, as in Azure's price calculator.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import typer
import yaml

from cumulet.common import config as settings
from cumulet.common.config import ConfigError
from cumulet.common.kubernetes.objects import Container, Object
from cumulet.instances.model.amounts import least
from cumulet.instances.model.regions import sheet
from cumulet.node.phase import is_sidecar
from cumulet.node.resources import asks_for_resources, billed_resources

_SUFFIXES = (".yaml", ".yml", ".json")
_DAY, _MONTH = 24, 730
#: The key of the virtual node's taint.
_TAINT = "virtual-kubelet.io/provider"
_REPLICATED = ("Deployment", "ReplicaSet", "StatefulSet", "ReplicationController")
_DEFAULT_REGION = "eastus"


def currency() -> str:
    """Return the currency of the price sheet."""
    return sheet().currency


def estimate(sources: Sequence[str]) -> list[dict[str, object]]:
    """Return a row for each workload in files, folders or standard input (`-`), and a total. Raises `BadParameter`."""
    rows = []
    for source in sources:
        for name, text in _texts(source):
            try:
                for document in yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
                    rows += [_row(item, spec, count) for item, spec, count in _workloads(document)]
            except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
                reason = " ".join(str(error).split())
                raise typer.BadParameter(
                    f"{name} is not a valid manifest: {reason}", param_hint="--filename"
                ) from None
    total: dict[str, object] = {"kind": "", "name": "Total", "namespace": "", "pods": "", "vcpu": "", "gb": ""}
    for column in ("hour", "day", "month"):
        prices = [Decimal(str(row[column])) for row in rows if row["kind"] != "CronJob"]
        total[column] = _money(sum(prices, Decimal(0)))
    return [*rows, {**total, "currency": currency(), "note": ""}]


def _texts(source: str) -> Iterator[tuple[str, str]]:
    if source == "-":
        yield "standard input", sys.stdin.read()
        return
    path = Path(source)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
        if not files:
            raise typer.BadParameter(f"{source} has no file {', '.join(_SUFFIXES)}", param_hint="--filename")
    else:
        files = [path]
    for file in files:
        yield str(file), file.read_text()


def _workloads(document: object) -> Iterator[tuple[Object, Object, int]]:
    """Yield the workloads in a manifest, each with its pod specification and its number of pods."""
    if document is None:
        return
    if not isinstance(document, dict) or "kind" not in document:
        raise ValueError("it is not a Kubernetes object")
    kind, spec = document["kind"], document.get("spec") or {}
    if kind == "List" or (kind.endswith("List") and "items" in document):
        for item in document.get("items") or ():
            yield from _workloads(item)
    elif kind == "Pod":
        yield document, spec, 1
    elif kind in _REPLICATED:
        replicas = spec.get("replicas")
        yield document, spec["template"]["spec"], 1 if replicas is None else int(replicas)
    elif kind == "DaemonSet":
        yield document, spec["template"]["spec"], 1
    elif kind == "Job":
        yield document, spec["template"]["spec"], _parallel(spec)
    elif kind == "CronJob":
        job = spec["jobTemplate"]["spec"]
        yield document, job["template"]["spec"], _parallel(job)


def _parallel(job: Object) -> int:
    """Return the number of pods of a Job that run at the same time."""
    parallelism, completions = job.get("parallelism"), job.get("completions")
    parallelism = 1 if parallelism is None else int(parallelism)
    return parallelism if completions is None else min(parallelism, int(completions))


def _row(workload: Object, spec: Object, count: int) -> dict[str, object]:
    sidecars = [item for item in spec.get("initContainers") or () if is_sidecar(item) and asks_for_resources(item)]
    containers = [*spec["containers"], *sidecars]
    requests = [billed_resources(_with_defaults(container))["requests"] for container in containers]
    cpu, memory = least(sum(item["cpu"] for item in requests), sum(item["memoryInGB"] for item in requests))
    price = sheet().region(_location()).regular
    hour = count * (
        Decimal(str(cpu)) * Decimal(str(price.vcpu_hour)) + Decimal(str(memory)) * Decimal(str(price.gb_hour))
    )
    is_run = workload["kind"] == "CronJob"
    metadata = workload.get("metadata") or {}
    return {
        "kind": workload["kind"],
        "name": metadata.get("name") or metadata.get("generateName", ""),
        "namespace": metadata.get("namespace", "default"),
        "pods": count,
        "vcpu": cpu,
        "gb": memory,
        "hour": _money(hour),
        "day": "" if is_run else _money(hour * _DAY),
        "month": "" if is_run else _money(hour * _MONTH),
        "currency": currency(),
        "note": _note(spec, is_run=is_run),
    }


def _with_defaults(container: Container) -> Container:
    """Return a container with a request for each limit, as the API server writes it."""
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    completed: Container = {**container, "resources": {**resources, "requests": {**limits, **requests}}}
    return completed


def _note(spec: Object, *, is_run: bool) -> str:
    notes = ["per hour of one run, not in the total"] if is_run else []
    tolerations = spec.get("tolerations") or ()
    if not any(item.get("key") in (None, "", _TAINT) for item in tolerations):
        notes.append(f"does not tolerate {_TAINT}: not scheduled to a virtual node")
    return "; ".join(notes)


def _location() -> str:
    try:
        return settings.load(settings.default_data_dir()).location
    except (ConfigError, OSError):
        return _DEFAULT_REGION


def _money(value: Decimal) -> str:
    return f"{value:.6f}"

"""Records facts of a new cluster of Kubernetes: python scripts/record_cluster.py KUBECONFIG.

Makes `src/cumulet/kube/access/roles.json`, the default roles and bindings, and `src/cumulet/kube/tables/descriptions.json`, the
descriptions of the columns of tables. The user of the kubeconfig must be an administrator.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from cumulet.common.kubernetes import Client, load_kubeconfig
from cumulet.common.kubernetes.client import AnyResource, Resource
from cumulet.common.kubernetes.objects import Fields, Object
from cumulet.kube.catalog.resources import RESOURCES

_KUBE = Path(__file__).parents[1] / "src" / "cumulet" / "kube"
ROLES = _KUBE / "access" / "roles.json"
DESCRIPTIONS = _KUBE / "tables" / "descriptions.json"

_RBAC = "rbac.authorization.k8s.io"
_KINDS: tuple[AnyResource, ...] = (
    Resource(_RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False),
    Resource(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    Resource(_RBAC, "v1", "roles", "Role"),
    Resource(_RBAC, "v1", "rolebindings", "RoleBinding"),
)
#: The label of default roles, which all have and the file omits.
_DEFAULT = "kubernetes.io/bootstrapping"
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


async def roles(client: Client) -> list[Object]:
    """The default roles and bindings, by kind, namespace and name."""
    recorded: list[Object] = []
    for resource in _KINDS:
        listed = await client.request("GET", resource.path(), params={"labelSelector": f"{_DEFAULT}=rbac-defaults"})
        items = [_role(resource.kind, item) for item in listed["items"]]
        recorded += sorted(items, key=lambda item: (item["metadata"].get("namespace", ""), item["metadata"]["name"]))
    return recorded


def _role(kind: str, item: Fields) -> Object:
    """A role or binding without the fields that the server sets. A controller sets the rules of an aggregated role."""
    metadata = item["metadata"]
    labels = {name: value for name, value in (metadata.get("labels") or {}).items() if name != _DEFAULT}
    kept: Object = {"name": metadata["name"]}
    if "namespace" in metadata:
        kept["namespace"] = metadata["namespace"]
    if labels:
        kept["labels"] = labels
    role: Object = {"kind": kind, "metadata": kept}
    fields = ("aggregationRule",) if "aggregationRule" in item else ("rules", "subjects", "roleRef")
    for field in fields:
        if item.get(field):
            role[field] = _sorted(item[field])
    return role


def _sorted(value: object) -> object:
    """A value with the keys of its objects in alphabetical order."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


async def descriptions(client: Client) -> dict[str, list[str]]:
    """The descriptions of the columns of each resource that the table of resources has and the server lists."""
    recorded: dict[str, list[str]] = {}
    for row in RESOURCES:
        # Metrics come from a server of their own, which a new cluster lacks.
        if row.hub is None and "list" in row.verbs and row.group != "metrics.k8s.io":
            resource: AnyResource = Resource(row.group, row.version, row.plural, row.kind, row.namespaced)
            table = await client.request("GET", resource.path(), params={"limit": "1"}, accept=_TABLE)
            recorded[row.key] = [column["description"] for column in table["columnDefinitions"]]
    return recorded


def roles_text(recorded: list[Object]) -> str:
    """The text of `roles.json`."""
    return "[\n" + ",\n".join(msgspec.json.encode(role).decode() for role in recorded) + "\n]\n"


def descriptions_text(recorded: dict[str, list[str]]) -> str:
    """The text of `descriptions.json`: every text once, and the numbers of the texts of each resource."""
    texts: dict[str, int] = {}
    numbers: list[str] = []
    for name, columns in sorted(recorded.items()):
        for text in columns:
            texts.setdefault(text, len(texts))
        numbers.append(f'"{name}": [{", ".join(str(texts[text]) for text in columns)}]')
    listed, of = ",\n".join(msgspec.json.encode(text).decode() for text in texts), ",\n".join(numbers)
    return f'{{"texts": [\n{listed}\n],\n"of": {{\n{of}\n}}}}\n'


async def main(kubeconfig: Path) -> None:
    """Write both files."""
    async with Client(load_kubeconfig(kubeconfig), user_agent="record-cluster") as client:
        ROLES.write_text(roles_text(await roles(client)))
        DESCRIPTIONS.write_text(descriptions_text(await descriptions(client)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))

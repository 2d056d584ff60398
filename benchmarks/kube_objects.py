"""The objects that the benchmark of the API server creates."""

from __future__ import annotations


def pod() -> dict[str, object]:
    """Return a pod as a Deployment creates it, about 4.9 kB when stored. `%d` stands for its number."""
    containers = []
    for name, port in (("web", 8080), ("proxy", 9090)):
        probe = {"httpGet": {"path": "/healthz", "port": port}, "initialDelaySeconds": 3, "periodSeconds": 15}
        containers.append(
            {
                "name": name,
                "image": f"acrdemo2ss.azurecr.io/app3/{name}:v1",
                "args": [f"--listen=:{port}", "--log-format=json", "--graceful-shutdown=20s"],
                "ports": [{"name": "http", "containerPort": port}],
                "env": [
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "LEVEL", "value": "info"},
                ],
                "resources": {
                    "requests": {"cpu": "10m", "memory": "16Mi"},
                    "limits": {"cpu": "500m", "memory": "128Mi"},
                },
                "readinessProbe": probe,
                "securityContext": {"allowPrivilegeEscalation": False, "runAsNonRoot": True, "runAsUser": 1000},
            }
        )
    labels = {"app.kubernetes.io/name": "web", "app.kubernetes.io/instance": "bench", "number": "n-%d"}
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": "9090"}
    metadata = {"name": "pod-%d", "labels": labels, "annotations": annotations}
    toleration = {"key": "virtual-kubelet.io/provider", "operator": "Exists", "effect": "NoSchedule"}
    spec = {"containers": containers, "tolerations": [toleration], "nodeSelector": {"kubernetes.io/os": "linux"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def node(number: int) -> dict[str, object]:
    """Return a ready node."""
    resources = {"cpu": "64", "memory": "256Gi", "pods": "250"}
    return {
        "metadata": {"name": f"node-{number}", "labels": {"kubernetes.io/os": "linux"}},
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }

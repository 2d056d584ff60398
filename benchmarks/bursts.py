"""Measures how long many pods take until all of them run: with a cached image, and with one absent image of 40 MB."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from tests.installation import Installation

#: Pods with a cached image that start together.
TEN, HUNDRED = 10, 100
#: Bytes of random data in the image that is absent.
LARGE = 40 * 10**6

#: Pushes an image with that many random bytes under a tag, and returns its name in a pod.
Push = Callable[[str, int], str]


def cached(installation: Installation, image: str, pods: int) -> float:
    """Return the seconds until pods of a cached image run."""
    return _rollout(installation, image, pods)


def absent(installation: Installation, push: Push) -> tuple[float, float]:
    """Return the seconds until one pod of an absent image runs, and ten pods of another."""
    one, ten = push("one", LARGE), push("ten", LARGE)
    return _rollout(installation, one, 1), _rollout(installation, ten, TEN)


def _rollout(installation: Installation, image: str, pods: int) -> float:
    """Apply a Deployment, wait until its pods are ready, and delete it. Return the seconds until they are ready."""
    labels = {"app": "burst"}
    container = {"name": "web", "image": image, "imagePullPolicy": "IfNotPresent"}
    spec = {
        "containers": [container],
        "imagePullSecrets": [{"name": "acrdemo2ss-secret"}],
        "nodeSelector": {"type": "virtual-kubelet"},
        "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
        "terminationGracePeriodSeconds": 0,
    }
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "burst"},
        "spec": {
            "replicas": pods,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
    began = time.monotonic()
    installation.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    installation.kubectl("rollout", "status", "deployment/burst", "--timeout=90s")
    took = time.monotonic() - began
    installation.kubectl("delete", "deployment/burst")
    installation.kubectl("wait", "pods", "-l", "app=burst", "--for=delete", "--timeout=90s")
    return took

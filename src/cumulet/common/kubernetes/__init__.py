"""A small Kubernetes client on plain JSON objects: what the scheduler, controllers, node and balancer are made of.

It works against any API server that a kubeconfig names. Objects are `dict`s as the API has them and are never
changed in place once an informer holds them. Beside it, for those at either end of a pod's streams: `channels`, and how they
are agreed upon, `negotiation`.
"""

from cumulet.common.kubernetes.client import Client, KubernetesError, Resource
from cumulet.common.kubernetes.events import EventRecorder
from cumulet.common.kubernetes.informer import Informer
from cumulet.common.kubernetes.kubeconfig import Kubeconfig, load_kubeconfig
from cumulet.common.kubernetes.workqueue import WorkQueue

__all__ = [
    "Client",
    "EventRecorder",
    "Informer",
    "Kubeconfig",
    "KubernetesError",
    "Resource",
    "WorkQueue",
    "load_kubeconfig",
]

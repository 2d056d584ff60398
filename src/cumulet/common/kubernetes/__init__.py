"""A small Kubernetes client on plain JSON objects, used by the scheduler, the controllers, the node and the balancer.

It works with any API server that a kubeconfig names. Objects are `dict`s with the types of `objects`. Never change an object
that an informer holds. The streams of pods are here too: `channels` carries them, `negotiation` selects their protocol.
"""

from cumulet.common.kubernetes.client import Client, KubernetesError, Resource, suppress_stale
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
    "suppress_stale",
]

"""The life cycle of the room: one informer for each resource, one queue and a few workers for each controller."""

from __future__ import annotations

from collections.abc import Callable

from cumulet.common.kubernetes.component import client_of, health_app, run_informers
from cumulet.common.kubernetes.election import lead
from cumulet.common.room import Room
from cumulet.common.tasks import TaskSet, task_set
from cumulet.controllers.aggregation import RoleAggregationController
from cumulet.controllers.autoscaling import AutoscalingController
from cumulet.controllers.certificates import CertificateController
from cumulet.controllers.controller import Context, Controller
from cumulet.controllers.cronjob import CronJobController
from cumulet.controllers.daemonset import DaemonSetController
from cumulet.controllers.deployment import DeploymentController
from cumulet.controllers.disruption import DisruptionController
from cumulet.controllers.endpoints import EndpointsController
from cumulet.controllers.ephemeral_volumes import EphemeralVolumeController
from cumulet.controllers.eviction import TaintEvictionController
from cumulet.controllers.garbage import GarbageCollector
from cumulet.controllers.job import ExpiryController, JobController, OrphanPodController
from cumulet.controllers.mirroring import EndpointSliceMirroringController
from cumulet.controllers.namespaces import NamespaceController, ServiceAccountController
from cumulet.controllers.nodes import NodeLifecycleController
from cumulet.controllers.podgc import PodGarbageCollector
from cumulet.controllers.protection import VolumeProtectionController
from cumulet.controllers.quota import QuotaController
from cumulet.controllers.replicaset import ReplicaSetController, ReplicationControllerController
from cumulet.controllers.signers import Signers
from cumulet.controllers.statefulset import StatefulSetController
from cumulet.controllers.tokens import TokenController
from cumulet.controllers.trust import TrustController
from cumulet.controllers.volumebinding import VolumeBindingController

#: The controllers and the numbers of their workers.
CONTROLLERS: tuple[tuple[Callable[[Context], Controller], int], ...] = (
    (DeploymentController, 4),
    (ReplicaSetController, 4),
    (ReplicationControllerController, 1),
    (StatefulSetController, 4),
    (DaemonSetController, 2),
    (JobController, 4),
    (ExpiryController, 1),
    (OrphanPodController, 1),
    (CronJobController, 2),
    (EndpointsController, 4),
    (EndpointSliceMirroringController, 2),
    (GarbageCollector, 8),
    (NamespaceController, 2),
    (ServiceAccountController, 2),
    (TokenController, 2),
    (NodeLifecycleController, 2),
    (TaintEvictionController, 4),
    (PodGarbageCollector, 1),
    (DisruptionController, 2),
    (AutoscalingController, 2),
    (QuotaController, 2),
    (VolumeProtectionController, 1),
    (VolumeBindingController, 2),
    (EphemeralVolumeController, 1),
    (CertificateController, 1),
    (RoleAggregationController, 1),
    (TrustController, 1),
)


async def serve(room: Room) -> None:
    """Run the controllers until the room stops."""
    async with client_of(room) as client, task_set() as tasks:
        own = room.config.kubeconfig is None
        context = Context(
            client,
            tasks,
            Signers(room.config) if own else None,
            room.config.trust_bundle_file if own else None,
        )
        controllers = [(make(context), workers) for make, workers in CONTROLLERS]
        informers = list(context.informers.values())
        async with room.serving(health_app(informers)):
            room.ready()
            for recorder in context.recorders.values():
                tasks.start_essential(recorder.run(), "events")
            await run_informers(informers, tasks, room.stopping)

            def work(working: TaskSet) -> None:
                for controller, workers in controllers:
                    for _ in range(workers):
                        task = controller.queue.work(controller.reconcile)
                        working.start_essential(task, type(controller).__name__)

            await lead(client, "kube-controller-manager", room, work)

"""The room's life: one informer a resource, one queue and a few workers a controller."""

from __future__ import annotations

from collections.abc import Callable

from cumulet.common.kubernetes.component import client_of, health_app, run_informers
from cumulet.common.room import Room
from cumulet.common.tasks import task_set
from cumulet.controllers.controller import Context, Controller
from cumulet.controllers.deployment import DeploymentController
from cumulet.controllers.endpoints import EndpointsController
from cumulet.controllers.garbage import GarbageCollector
from cumulet.controllers.jobs import JobController
from cumulet.controllers.namespaces import NamespaceController, ServiceAccountController
from cumulet.controllers.nodes import NodeLifecycleController
from cumulet.controllers.replicaset import ReplicaSetController

#: Each controller and how many of its keys are worked on at once.
CONTROLLERS: tuple[tuple[Callable[[Context], Controller], int], ...] = (
    (DeploymentController, 4),
    (ReplicaSetController, 4),
    (JobController, 4),
    (EndpointsController, 4),
    (GarbageCollector, 8),
    (NamespaceController, 2),
    (ServiceAccountController, 2),
    (NodeLifecycleController, 2),
)


async def serve(room: Room) -> None:
    """Control until told to stop."""
    async with client_of(room) as client, task_set() as tasks:
        context = Context(client)
        controllers = [(make(context), workers) for make, workers in CONTROLLERS]
        informers = list(context.informers.values())
        async with room.serving(health_app(informers)):
            room.ready()
            for recorder in context.recorders.values():
                tasks.start_essential(recorder.run(), "events")
            await run_informers(informers, tasks)
            for controller, workers in controllers:
                for _ in range(workers):
                    tasks.start_essential(controller.queue.work(controller.reconcile), type(controller).__name__)
            await room.stopping.wait()

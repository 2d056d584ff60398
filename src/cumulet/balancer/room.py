"""Runs the service controller, and the proxy in user space where the settings ask for it."""

from __future__ import annotations

from cumulet.balancer.controller import Balancer
from cumulet.balancer.forwarder import Forwarder
from cumulet.common.kubernetes.component import client_of, health_app, run_informers
from cumulet.common.room import Room
from cumulet.common.tasks import task_set


async def serve(room: Room) -> None:
    """Run the load balancer until the room is stopped."""
    async with client_of(room) as client, task_set() as tasks:
        egress = room.config.egress(reach_pods=True)
        forwarder = Forwarder(client, egress) if room.config.user_space_proxy else None
        balancer = Balancer(client, room.config.external_cidr, forwarder)
        async with room.serving(health_app(balancer.informers)):
            room.ready()
            tasks.start_essential(balancer.events.run(), "events")
            await run_informers(balancer.informers, tasks, room.stopping)
            balancer.adopt()
            for _ in range(4):
                tasks.start_essential(balancer.queue.work(balancer.reconcile), "service")
            await room.stopping.wait()
            if forwarder is not None:
                forwarder.close()

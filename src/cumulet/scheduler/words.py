"""The messages for pods that cannot be placed, in upstream's words (`framework.FitError`, `preemption.Preempt`)."""

from __future__ import annotations

from collections.abc import Iterable

from cumulet.scheduler.framework import Refusal

NO_NODES = "no nodes available to schedule pods"
NEVER = "not eligible due to preemptionPolicy=Never."
STILL_GOING = "not eligible due to a terminating pod on the nominated node."
NOT_HELPFUL = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"


def histogram(total: int, reasons: Iterable[str]) -> str:
    """`0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.`"""
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    listed = ", ".join(sorted(f"{count} {reason}" for reason, count in counts.items()))
    return f"0/{total} nodes are available:" + (f" {listed}." if listed else "")


def unplaced(total: int, refusals: Iterable[Refusal], preemption: str | None) -> str:
    """The message if no node can take the pod. `preemption` is the reason why eviction cannot help, or `None` if it can."""
    message = histogram(total, (reason for refusal in refusals for reason in refusal.reasons))
    if preemption is None:
        return message
    # Upstream starts with the result of its plug-in for resource claims.
    return f"{message} no new claims to deallocate, preemption: {preemption}"


def refused(total: int, refusal: Refusal) -> str:
    """The message if a reason applies to all nodes. Upstream ends it with an error of its next plug-in, `not found`."""
    return f"0/{total} nodes are available: {', '.join(refusal.reasons)}. not found"

"""API Priority and Fairness: how many requests of a priority level run at once, and in which order others wait.

A user and the attributes of a request come in; a seat goes out when it is the request's turn, or an error 429.
Follows flowcontrol.apiserver.k8s.io/v1. A FlowSchema assigns a request to a level and a flow. A
PriorityLevelConfiguration sets the seats of its level and how many requests may wait. The flows of a level take
turns, so a burst of one client delays its own requests first, and never those of other levels.
"""

from cumulet.kube.flow.defaults import LEVELS, SCHEMAS
from cumulet.kube.flow.levels import SEAT, Seat
from cumulet.kube.flow.schemas import GROUP, Flows

__all__ = ["GROUP", "LEVELS", "SCHEMAS", "SEAT", "Flows", "Seat"]

"""API Priority and Fairness: the requests that a priority level runs at once, and the order of those that wait.

A user and the attributes of a request come in; a seat goes out when it is the request's turn, or a 429. Follows
flowcontrol.apiserver.k8s.io/v1. A FlowSchema says to which level a request belongs and which flow it is part of; a
PriorityLevelConfiguration, how many seats its level has and how many may wait. Flows of a level take turns, so that one
client's storm holds up its own requests first and those of other levels never.
"""

from cumulet.kube.flow.defaults import LEVELS, SCHEMAS
from cumulet.kube.flow.levels import SEAT, Seat
from cumulet.kube.flow.schemas import GROUP, Flows

__all__ = ["GROUP", "LEVELS", "SCHEMAS", "SEAT", "Flows", "Seat"]

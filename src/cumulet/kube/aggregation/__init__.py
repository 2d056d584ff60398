"""API servers behind this one: what an APIService registers is answered by the service that it names."""

from cumulet.kube.aggregation.definition import KEY, check
from cumulet.kube.aggregation.servers import Aggregation

__all__ = ["KEY", "Aggregation", "check"]

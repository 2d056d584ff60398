"""Deployments replace one replica set by the next without an outage (`pkg/controller/deployment`)."""

from cumulet.controllers.deployment.controller import DeploymentController

__all__ = ["DeploymentController"]

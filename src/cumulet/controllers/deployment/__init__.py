"""Deployments: from one replica set to the next without being out of service (`pkg/controller/deployment`)."""

from cumulet.controllers.deployment.controller import DeploymentController

__all__ = ["DeploymentController"]

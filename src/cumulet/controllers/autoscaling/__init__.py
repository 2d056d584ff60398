"""Horizontal pod autoscaling by metrics (`pkg/controller/podautoscaler`, autoscaling/v2)."""

from cumulet.controllers.autoscaling.controller import AutoscalingController

__all__ = ["AutoscalingController"]

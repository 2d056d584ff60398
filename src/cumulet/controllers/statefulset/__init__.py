"""Stateful sets: pods with names, an order and claims of their own (`pkg/controller/statefulset`)."""

from cumulet.controllers.statefulset.controller import StatefulSetController

__all__ = ["StatefulSetController"]

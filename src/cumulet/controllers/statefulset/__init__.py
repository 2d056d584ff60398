"""Stateful sets: pods with stable names, an order, and their own claims (`pkg/controller/statefulset`)."""

from cumulet.controllers.statefulset.controller import StatefulSetController

__all__ = ["StatefulSetController"]

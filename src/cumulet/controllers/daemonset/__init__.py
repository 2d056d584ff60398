"""Daemon sets: a pod on every node that they choose (`pkg/controller/daemon`)."""

from cumulet.controllers.daemonset.controller import DaemonSetController

__all__ = ["DaemonSetController"]

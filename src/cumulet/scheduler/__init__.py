"""Gives every pod a node, for pods that name `default-scheduler`.

It is a client of the Kubernetes API and of nothing else, and can stand beside or in for upstream's scheduler.
"""

"""Assigns a node to every pod whose scheduler is `default-scheduler`.

It is a client of the Kubernetes API and uses nothing else. It can run beside upstream's scheduler or replace it.
"""

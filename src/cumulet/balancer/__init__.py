"""Gives Services of type LoadBalancer a public address, and carries their traffic to the pods that are ready.

It is a client of the Kubernetes API, as a cloud's controller manager is, and a load balancer, as the cloud's own.
"""

"""Gives Services of type LoadBalancer an address, and forwards their TCP connections to ready pods.

In come Services and EndpointSlices of a Kubernetes API, and connections of clients. Out go the addresses in the status of
Services, events, and connections to pods. It stands in for a cloud's service controller and load balancer.
"""

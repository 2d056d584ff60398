"""Gives Services of type LoadBalancer an address, in the place of a cloud's service controller.

In come Services of a Kubernetes API. Out go the addresses in their status, and events. The room `network` carries the
connections. Without root or nftables this room does, in user space: then clients' connections come in, and connections to
pods go out.
"""

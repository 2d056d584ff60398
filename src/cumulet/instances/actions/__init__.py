"""The actions of probes and hooks: commands in a container, HTTP requests, TCP connections and calls of gRPC health checks.

In come an action, the address of the group, and a limit of time. Out come a result with the kubelet's words.
"""

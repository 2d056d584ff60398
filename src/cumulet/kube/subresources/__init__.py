"""The sub-resources that are not part of their object: scale, binding, eviction, token, log, exec, proxy.

A request on a sub-resource comes in from `api`; `routes` hands it to its module. Writes go through `objects`, and
streams go to the kubelet of the pod's node. The reviews of authentication and authorization are answered here too.
"""

"""The controllers of a cluster, one module each. They bring the actual state of objects to the desired state.

They are clients of the Kubernetes API and use nothing else. They can run beside upstream's controller manager or replace it.
Each of them reconciles one object at a time. Repeated reconciliations have the same result.
"""

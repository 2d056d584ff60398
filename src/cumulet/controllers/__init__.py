"""The controllers of a cluster, one module each: from what is wanted to what is.

They are clients of the Kubernetes API and of nothing else, and can stand beside or in for upstream's controller
manager. Each reconciles one object at a time, as often as it likes, to the same end.
"""

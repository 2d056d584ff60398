"""The privileges of a container: its security context, its capabilities, and its system call filter (seccomp).

In comes the `securityContext` of a container. Out go checked values and a filter, or the reason why a field is refused.
"""

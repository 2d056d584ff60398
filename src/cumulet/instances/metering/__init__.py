"""The usage of container groups: the records that are billed, and the processor time and memory in use.

In come the start and stop of groups and the counters of their control groups. Out go rows with costs, and measurements.
"""

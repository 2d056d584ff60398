"""The properties of a container group (REST reference 2023-05-01), its amounts of resources, and the regions' prices.

These are plain values. `validation` decides which of them are accepted.
"""

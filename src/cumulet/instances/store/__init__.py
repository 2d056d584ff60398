"""The durable records of container groups: properties, which are encrypted, and status.

In come records to write. Out go the records of the last start, checked again by today's rules.
"""

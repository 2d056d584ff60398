"""The life cycle of container groups, from the first pull to the last exit, and the launch of their containers.

In come validated properties, and requests to update, stop or delete a group. Out go the status and the events of each
group, durable before they are shown, and a revision that grows with every change.
"""

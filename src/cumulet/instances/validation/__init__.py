"""Checks every string and number of a request before anything is made of it.

In comes the body of a request. Out go typed properties, or an ARM error that names the property and the reason.
"""

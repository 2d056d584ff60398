"""The front door: Azure Resource Manager's REST API, for az, the Azure SDKs, Terraform and the virtual node.

It authenticates the caller by an Entra token and authorises it by Azure roles. It keeps the resource groups, and
forwards every other request to the room that is the resource provider.
"""

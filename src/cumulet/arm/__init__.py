"""The front door: Azure Resource Manager's REST, for az, the Azure SDKs, Terraform and the virtual node.

It knows who calls (an Entra token) and what they may do (their roles), keeps resource groups, and hands the rest to
the room that is the resource provider.
"""

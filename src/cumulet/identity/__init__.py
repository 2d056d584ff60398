"""Stands in for Microsoft Entra ID, for every client that needs an access token.

It stores applications, service principals, their credentials and their role assignments. It issues OAuth2 access tokens
and publishes the keys that verify them. It serves Microsoft Graph, and to the front door the resource providers
`Microsoft.Authorization` and `Microsoft.ManagedIdentity`.
"""

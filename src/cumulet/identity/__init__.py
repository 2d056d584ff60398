"""Stands in for Microsoft Entra ID, for everyone who needs a token.

It keeps applications, service principals, their secrets and the roles that they are given. It issues and publishes
the keys of OAuth2 access tokens, answers Microsoft Graph, and is the front door's provider of
`Microsoft.Authorization`.
"""

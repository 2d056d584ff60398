"""ACR's own data plane, `/acr/v1/…`, as `az acr repository`, `az acr manifest` and azure-containerregistry use it.

Requests on repositories, tags and manifests come in. JSON documents in ACR's form go out.
"""

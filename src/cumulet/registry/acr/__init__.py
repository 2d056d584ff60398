"""ACR's own data plane, `/acr/v1/…`, as `az acr repository`, `az acr manifest` and azure-containerregistry use it."""

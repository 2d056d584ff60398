"""Services: from Services and EndpointSlices to tables of nftables, in kube-proxy's place."""

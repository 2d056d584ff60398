"""Network policies: from NetworkPolicies, Pods and Namespaces to a table of nftables."""

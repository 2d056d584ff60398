"""Network policies: from NetworkPolicies, Pods and Namespaces to the table `ip policies` of the router.

    model       a NetworkPolicy as typed values; what cannot be understood isolates, and admits nobody
    pods        what policies match of a pod
    compiler    the state of the cluster, and the sets and chains that it asks for; each change costs what it touches
    rules       the rules of one policy
    ruleset     sets and chains, and the script from one state of them to the next
    controller  watches the cluster, and loads the difference in one transaction

A packet is judged by its connection: by the address that opened it, and by the address and port that it reached after
translation. So a policy sees pods, not cluster IPs, and replies have the verdict of their request. As every packet is judged,
a connection ends, without a word, when a policy comes to forbid it.
"""

"""What name servers share: questions and answers on the wire (RFC 1035, RFC 6891), and a server for UDP and TCP.

dnspython reads and writes the messages.
"""

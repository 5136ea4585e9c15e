"""Several machines with Ray: a corpus scored by all of them, and the service in replicas.

Boundary: what is Ray's. What a part of a corpus is, and what the service answers, is known elsewhere and without it.
"""

"""
regd is a container registry daemon: the Docker Registry HTTP API v2 and the
OCI distribution specification 1.1, over the storage and the configuration that
``registry:2`` leaves behind, in one Twisted daemon. The modules below are
named after the protocol's nouns; ``docs/architecture.rst`` has the map.
"""

__version__ = "0.1.0"

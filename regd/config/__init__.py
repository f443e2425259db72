"""The configuration: registry:2's ``config.yml`` and ``REGISTRY_*`` variables, read into frozen values.

:func:`load` does it all; :func:`check` is what ``regd check-config`` prints. What every key means is in ``docs/configuration.rst``.
"""

from __future__ import annotations

from regd.config.addresses import TCPAddress, UnixAddress
from regd.config.authvalues import Auth, Htpasswd, Issuer, Rule, Silly, TokenAuth
from regd.config.caching import CacheLimits, CacheUpstream, PullThrough
from regd.config.error import ConfigError
from regd.config.healthvalues import FileCheck, HealthChecks, HTTPCheck, StorageCheck, TCPCheck
from regd.config.limitvalues import Limits, Patience, Rate, RateLimit
from regd.config.load import DEFAULT_PATH, default_path, load, parse
from regd.config.model import (
    HTTP,
    AccessLog,
    Catalog,
    Config,
    Debug,
    Delete,
    FilesystemStorage,
    GarbageCollect,
    IndexRules,
    InMemoryStorage,
    Loaded,
    Log,
    Maintenance,
    ManifestValidation,
    NoStorage,
    Platform,
    Prometheus,
    ReadOnly,
    ReverseProxy,
    Storage,
    Tags,
    UploadPurging,
    URLRules,
    Validation,
)
from regd.config.notifying import Endpoint, Ignore, Notifications
from regd.config.proxying import HealthCheck, Route, Timeouts, Upstream, UpstreamTLS
from regd.config.report import Report, check
from regd.config.tlsvalues import HSTS, TLS, KeyPair, LetsEncrypt
from regd.config.tracingvalues import Tracing
from regd.config.window import Window

__all__ = [
    "DEFAULT_PATH",
    "HSTS",
    "HTTP",
    "TLS",
    "AccessLog",
    "Auth",
    "CacheLimits",
    "CacheUpstream",
    "Catalog",
    "Config",
    "ConfigError",
    "Debug",
    "Delete",
    "Endpoint",
    "FileCheck",
    "FilesystemStorage",
    "GarbageCollect",
    "HTTPCheck",
    "HealthCheck",
    "HealthChecks",
    "Htpasswd",
    "Ignore",
    "InMemoryStorage",
    "IndexRules",
    "Issuer",
    "KeyPair",
    "LetsEncrypt",
    "Limits",
    "Loaded",
    "Log",
    "Maintenance",
    "ManifestValidation",
    "NoStorage",
    "Notifications",
    "Patience",
    "Platform",
    "Prometheus",
    "PullThrough",
    "Rate",
    "RateLimit",
    "ReadOnly",
    "Report",
    "ReverseProxy",
    "Route",
    "Rule",
    "Silly",
    "Storage",
    "StorageCheck",
    "TCPAddress",
    "TCPCheck",
    "Tags",
    "Timeouts",
    "TokenAuth",
    "Tracing",
    "URLRules",
    "UnixAddress",
    "UploadPurging",
    "Upstream",
    "UpstreamTLS",
    "Validation",
    "Window",
    "check",
    "default_path",
    "load",
    "parse",
]

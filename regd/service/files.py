"""The files that a configuration names, and what has to be installed for it, looked at before anything needs them."""

from __future__ import annotations

from regd.config import Config, ConfigError
from regd.config.watched import read_files
from regd.proxy.dialing import CannotUseTLS, system_trust, tls_options
from regd.service.admission import check_files
from regd.telemetry.tracing import check_tracing

__all__ = ["unusable_files"]


def unusable_files(config: Config) -> list[str]:
    """
    Read the files that a configuration names for passwords, tokens and TLS, and look for what traces.

    :returns: a line for each section with something that cannot be used, as of a bad key; the daemon would not start with it.
    """
    problems: list[str] = []
    try:
        check_tracing(config.tracing)
    except ConfigError as error:
        problems += error.problems
    try:
        check_files(config, read_files(config))
    except ConfigError as error:
        problems += error.problems
    for index, route in enumerate(config.reverseproxy.routes):
        # What it says is for all of them.
        for upstream in [one for one in route.upstreams if one.scheme == "https"][:1]:
            try:
                tls_options(upstream, route.tls, f"reverseproxy.routes[{index}].tls")
            except CannotUseTLS as error:
                problems.append(str(error))
    for index, cached in enumerate(config.proxy.upstreams):
        section = f"proxy.upstreams[{index}].tls" if cached.prefix else "proxy.tls"
        try:
            tls_options(cached.remote, cached.tls, section)
            # It is for servers of tokens, too.
            system_trust(cached.tls.cafile, section)
        except CannotUseTLS as error:
            problems.append(str(error))
    return problems

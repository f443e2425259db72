"""What ``regd check-config`` says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regd.config import keys
from regd.config.caching import PullThrough
from regd.config.error import ConfigError
from regd.config.load import default_path, load
from regd.config.model import Config, FilesystemStorage, NoStorage

__all__ = ["Report", "check", "summary"]


@dataclass(frozen=True)
class Report:
    """The outcome of a check.

    :ivar ok: regd would start with this configuration.
    :ivar lines: what to print.
    """

    ok: bool
    lines: tuple[str, ...]


def check(
    path: str | None,
    environ: Mapping[str, str],
    examine: Callable[[Config], Sequence[str]] = lambda config: (),
    advise: Callable[[Config], Sequence[str]] = lambda config: (),
) -> Report:
    """Read a configuration as the daemon would, and say all there is to say about it.

    :param path: the file; ``None`` for :func:`~regd.config.load.default_path`.
    :param examine: finds problems that cannot be seen in the file alone.
    :param advise: what else is worth a warning, where there are no problems.
    :returns: every problem; or every warning, and then what is in effect. Secrets are not shown.
    """
    named = default_path(path, environ)
    try:
        loaded = load(path, environ)
        if problems := examine(loaded.config):
            raise ConfigError(*problems)
    except ConfigError as error:
        lines = (f"error: {problem}" for problem in error.problems)
        return Report(ok=False, lines=(*lines, f"{named}: regd does not start with this configuration"))
    lines = (f"warning: {warning}" for warning in (*loaded.warnings, *advise(loaded.config)))
    return Report(ok=True, lines=(*lines, f"{named}: regd starts with this configuration. In effect:", *summary(loaded.config)))


def summary(config: Config) -> tuple[str, ...]:
    """What is in effect, a line for each key, defaults included: ``http.addr: :5000``."""
    lines = []
    for key in keys.OBEYED:
        found, value = _value(config, key.path)
        if found:
            lines.append(f"{key.path}: {key.parser.show(value)}")
    return tuple(lines)


def _value(config: Config, path: str) -> tuple[bool, Any]:
    """Follow a key's path through the configuration, whose names are those of the file.

    :returns: whether there is such a value, and the value. Keys with nothing to obey have none, and neither have those of a driver
        that is not chosen, or all of ``http.tls`` without TLS, or of ``storage`` for a proxy only. ``Any``: keys are of many types.
    """
    if isinstance(config.storage.driver, NoStorage) and path.startswith("storage."):
        return False, None
    if path.startswith("proxy."):
        told = _told(config.proxy)
        return path in told, told.get(path)
    chosen = "filesystem" if isinstance(config.storage.driver, FilesystemStorage) else "inmemory"
    value: Any = config
    for name in path.split("."):
        if name == chosen:
            value = config.storage.driver
        elif hasattr(value, name):
            value = getattr(value, name)
        else:
            return False, None
    return True, value


def _told(proxy: PullThrough) -> Mapping[str, Any]:
    """What is in effect of ``proxy``, by key, in the form that was chosen. ``Any``: keys are of many types."""
    whole, limits = proxy.whole, proxy.limits
    told: dict[str, Any] = {keys.REMOTEURL.path: whole and whole.remote, keys.UPSTREAMS.path: proxy.upstreams}
    if whole is not None:
        told = {key.path: getattr(whole, name) for name, key in keys.REMOTE.items() if hasattr(whole, name)}
        told[keys.REMOTEURL.path] = whole.remote
    if proxy.upstreams:
        told |= {keys.CACHE_MAXSIZE.path: limits.maxsize, keys.CACHE_MAXAGE.path: limits.maxage, keys.CACHE_INTERVAL.path: limits.interval}
    return told

"""What can be served by and is hardly meant so: keys that everybody may read, certificates that expire, rules that help nobody."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Final

from regd.auth.htpasswd import PasswordFile
from regd.config import Config, TCPAddress
from regd.config.authvalues import Rule
from regd.config.watched import Files, named_files, pair_section
from regd.tls.pem import Named, certificates, names_of, not_after, not_before

__all__ = ["advice"]

#: How soon a certificate is said to expire, in seconds.
_SOON: Final = 14 * 86400.0

#: The keys of files that nobody but regd should read.
_SECRET: Final = ("auth.htpasswd.path", "auth.issuer.key")


def advice(config: Config, files: Files, now: float) -> tuple[str, ...]:
    """
    What an operator should know of a configuration that is right.

    :param files: those that it names, which are what they should be.
    :param now: in seconds since the epoch.
    :returns: a line for each, beginning with the key that it is about.
    """
    return (*_permissions(config), *_certificates(config, files, now), *_plain_text(config), *_rules(config, files))


def _permissions(config: Config) -> Iterator[str]:
    for key, path in named_files(config):
        if key not in _SECRET and not (key.startswith("http.tls") and key.endswith(".key")):
            continue
        try:
            mode = os.stat(path).st_mode
        except OSError:
            # It was there a moment ago; whoever needs it says so.
            continue
        if mode & (stat.S_IROTH | stat.S_IWOTH):
            yield f"{key}: {path} can be read or changed by everybody on this machine; chmod 640 and chgrp to the group that regd runs as"


def _certificates(config: Config, files: Files, now: float) -> Iterator[str]:
    for index, pair in enumerate(() if config.http.tls is None else config.http.tls.pairs):
        key = f"{pair_section(index)}.certificate"
        first = certificates(Named(key, pair.certificate, files[pair.certificate]))[0]
        end, begin = not_after(first), not_before(first)
        if end <= now:
            yield f"{key}: {pair.certificate} has expired, {_day(end)}; no client accepts it"
        elif end <= now + _SOON:
            yield f"{key}: {pair.certificate} expires soon, {_day(end)}; have it renewed"
        if begin > now:
            yield f"{key}: {pair.certificate} is not valid yet, before {_day(begin)}; or the clock of this machine is wrong"
        if not names_of(first):
            yield f"{key}: {pair.certificate} is for no name at all; clients accept only one for the name that they ask for"


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _plain_text(config: Config) -> Iterator[str]:
    asks = config.auth.htpasswd is not None or config.auth.token is not None
    if not asks or config.http.tls is not None or config.http.host.startswith("https:") or config.reverseproxy.trusted:
        return
    addr = config.http.addr
    if isinstance(addr, TCPAddress) and not _is_local(addr.host):
        yield (
            f"auth: passwords and tokens come over {addr} in plain text; http.tls encrypts them, and where a proxy in front does, "
            "http.host or reverseproxy.trusted says so"
        )


def _is_local(host: str) -> bool:
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


def _rules(config: Config, files: Files) -> Iterator[str]:
    htpasswd = config.auth.htpasswd
    # Who tokens and certificates are for is others' to say.
    closed = htpasswd is not None and config.auth.token is None and (config.http.tls is None or not config.http.tls.verifies)
    known = frozenset(PasswordFile.parse("", "", files[htpasswd.path]).hashes) if closed and htpasswd is not None else None
    for index, rule in enumerate(config.access or ()):
        place = f"access[{index}]"
        if known is not None:
            yield from _unknown(config, rule, place, known)
        for action, why in _idle(config):
            if action in rule.actions:
                yield f"{place}: {action} is allowed to nobody, because {why}"
        before = next((one for one in range(index) if _covers((config.access or ())[one], rule)), None)
        if before is not None:
            yield f"{place}: allows nothing that access[{before}] does not allow already"


def _unknown(config: Config, rule: Rule, place: str, known: frozenset[str]) -> Iterator[str]:
    for one in rule.who:
        if one.startswith("@"):
            members = config.groups.get(one[1:], ())
            if known.isdisjoint(members):
                yield f"{place}: nobody is in {one}: of its members in groups, none is in auth.htpasswd"
        elif one not in {"*", "anonymous"} and one not in known:
            yield f"{place}: nobody can be {one}, who is not in auth.htpasswd"


def _idle(config: Config) -> Iterator[tuple[str, str]]:
    """Actions that nobody can do here, and why."""
    if not config.storage.delete.enabled:
        yield "delete", "storage.delete.enabled is false"
    if config.storage.maintenance.readonly.enabled:
        yield "push", "storage.maintenance.readonly.enabled is true"
    elif config.proxy.whole is not None:
        yield "push", "all of this registry is a cache (proxy.remoteurl)"


def _covers(earlier: Rule, later: Rule) -> bool:
    """Whether all of a rule is in an earlier one, as far as that can be seen without thinking about patterns."""
    who = "anonymous" in earlier.who or set(later.who) <= set(earlier.who)
    repositories = "**" in earlier.repositories or set(later.repositories) <= set(earlier.repositories)
    return who and repositories and set(later.actions) <= set(earlier.actions)

"""Who may come in, made of a configuration and its files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Final

from regd.auth.authenticator import Authenticator
from regd.auth.htpasswd import PasswordFile, Passwords
from regd.auth.issuing import ISSUER, Issuer, Signer, token_secret
from regd.auth.rules import Rules
from regd.auth.silly import Believer
from regd.auth.tokens import Expectation, Keys, Tokens
from regd.config import Auth, Config, TokenAuth
from regd.config import Rate as ConfigRate
from regd.config.watched import TOKEN_SECRET, Files
from regd.service.parts import urls_of
from regd.storage.threads import PoolThreads
from regd.tls.acceptor import Tally, TLSAcceptor
from regd.web.door import Door
from regd.web.guard import Guard
from regd.web.limits import Rates
from regd.web.rates import Rate, RateTable

__all__ = ["Admission", "Admitted", "check_files", "guarded"]

#: How many passwords a process checks at once. The rest waits, and requests that need no check do not.
_CHECKS: Final = 2

#: How long a token lives that nobody has configured, in seconds.
_LIFETIME: Final = 300.0


def guarded(config: Config) -> bool:
    """Whether there are things that not everybody may do."""
    return config.auth != Auth() or config.access is not None


@dataclass(frozen=True, slots=True)
class Admitted:
    """
    What a configuration asks for, ready for use.

    :ivar guard: stands before the handlers.
    :ivar issuer: makes tokens; ``None`` where others do, or nobody.
    """

    guard: Guard
    issuer: Issuer | None


class Admission:
    """
    Makes guards, one for each configuration.

    :param table: how often has been asked, and tried.
    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    """

    def __init__(self, reactor: Any, table: RateTable) -> None:
        self._reactor = reactor
        self._table = table
        self._threads: PoolThreads | None = None
        #: How often somebody was not who they said, whatever the configuration was.
        self._past = 0
        self._door: Door | None = None

    @property
    def failures(self) -> int:
        """How often somebody was not who they said."""
        return self._past + (0 if self._door is None else self._door.failures)

    def rates(self, config: Config) -> Rates:
        """How often each user and each address may ask."""
        return Rates(self._table, _rate(config.ratelimit.user), _rate(config.ratelimit.address))

    def admit(self, config: Config, files: Files) -> Admitted | None:
        """
        Who stands before the handlers; nobody where everybody may do everything.

        :raises ConfigError: when a file is not what it should be.
        """
        if not guarded(config):
            return None
        rules = Rules(config.access, config.groups)
        authenticators: list[Authenticator] = []
        issuer = _issuer(config, files, rules)
        if issuer is not None:
            authenticators.append(_own_tokens(issuer))
        if config.auth.token is not None:
            authenticators.append(_tokens(config.auth.token, files, bare=config.access is not None))
        htpasswd = config.auth.htpasswd
        if htpasswd is not None:
            parsed = PasswordFile.parse("auth.htpasswd.path", htpasswd.path, files[htpasswd.path])
            if self._threads is None:
                self._threads = PoolThreads(self._reactor, _CHECKS)
            authenticators.append(Passwords(parsed, htpasswd.realm, self._threads))
        if config.auth.silly is not None:
            authenticators.append(Believer(config.auth.silly.realm, config.auth.silly.service))
        # Where there are no rules, a certificate opens the door and no more, as in registry:2: the rest is for whoever has a password.
        certificates = config.access is not None and config.http.tls is not None
        self._past = self.failures
        door = self._door = Door(self._table, config.reverseproxy.trusts, self._reactor)
        rates = self.rates(config) if config.ratelimit.user.requests else None
        return Admitted(Guard(rules, authenticators, urls_of(config), certificates=certificates, rates=rates, door=door), issuer)

    def stop(self) -> None:
        """Check nothing any more."""
        if self._threads is not None:
            self._threads.stop()
            self._threads = None


def _rate(rate: ConfigRate) -> Rate | None:
    return Rate(rate.per / rate.requests, rate.requests) if rate.requests else None


def check_files(config: Config, files: Files) -> None:
    """
    Look whether files are what they should be.

    :raises ConfigError: when one is not.
    """
    auth = config.auth
    if auth.htpasswd is not None:
        PasswordFile.parse("auth.htpasswd.path", auth.htpasswd.path, files[auth.htpasswd.path])
    if auth.token is not None:
        _tokens(auth.token, files, bare=False)
    if auth.issuer is not None:
        Signer.parse(auth.issuer.key, files[auth.issuer.key])
    if config.http.tls is not None:
        TLSAcceptor(config.http.tls, files, Tally())


def _issuer(config: Config, files: Files, rules: Rules) -> Issuer | None:
    """
    Who makes tokens: where one is configured, or where some are let in with a password and some without. docker asks for no password only
    from a registry that speaks of tokens.
    """
    auth = config.auth
    if auth.issuer is not None:
        return Issuer(Signer.parse(auth.issuer.key, files[auth.issuer.key]), rules, auth.issuer.lifetime)
    if auth.htpasswd is None or auth.token is not None or not rules.names_everybody():
        return None
    return Issuer(Signer(_secret(config, files)), rules, _LIFETIME)


def _secret(config: Config, files: Files) -> bytes:
    return token_secret(config.http.secret, files.get(TOKEN_SECRET) or os.urandom(32))


def _own_tokens(issuer: Issuer) -> Tokens:
    expected = Expectation(ISSUER, ISSUER, (issuer.signer.algorithm,), leeway=0.0)
    if issuer.signer.public is None:
        return Tokens(Keys({}), expected, _own_realm, issuer.signer.secret)
    entry = issuer.signer.jwks()["keys"][0]
    return Tokens(Keys({entry["kid"]: issuer.signer.public}), expected, _own_realm)


def _own_realm(base: str) -> str:
    return f"{base}/auth/token"


def _tokens(token: TokenAuth, files: Files, *, bare: bool) -> Tokens:
    bundle = (token.rootcertbundle, files[token.rootcertbundle]) if token.rootcertbundle else None
    jwks = (token.jwks, files[token.jwks]) if token.jwks else None
    expected = Expectation(token.issuer, token.service, token.signingalgorithms, token.leeway, token.groups, bare)

    def realm(base: str) -> str:
        return f"{base}{token.autoredirectpath}" if token.autoredirect else token.realm

    return Tokens(Keys.parse(bundle=bundle, jwks=jwks), expected, realm)

"""The keys of ``http.tls``, and what has to fit together in them."""

from __future__ import annotations

from typing import Any, Final

from regd.config.addresses import TCPAddress, UnixAddress, parse_tcp_address
from regd.config.auths import Reading
from regd.config.error import ConfigError, shown
from regd.config.schema import Key
from regd.config.sections import file_path, host_name, section
from regd.config.tlsvalues import HSTS, MODES, TLS, ClientAuth, KeyPair, LetsEncrypt, MinimumTLS
from regd.config.values import Parser, boolean, choice, duration, from_text, list_of, text

__all__ = ["TLS_KEYS", "read_tls"]

#: As Go has them, and registry:2 with it. Those of TLS 1.3, the first three, choose nothing there either.
_SUITES: Final = (
    *("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"),
    *("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    *("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
    *("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
    *("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"),
    *("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"),
    *("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA"),
    *("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256"),
    *("TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_RSA_WITH_AES_256_CBC_SHA", "TLS_RSA_WITH_AES_128_CBC_SHA256"),
    *("TLS_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_256_GCM_SHA384"),
)

_PATH: Final = (from_text(lambda found: file_path(found) if found else "", shown), "")
_MINIMUM: Parser[MinimumTLS] = choice("tls1.2", "tls1.3", empty="tls1.2")


def _mode(found: str) -> ClientAuth | None:
    mode = next((mode for mode in MODES if mode == found), None)
    if mode is None and found:
        raise ValueError(f"one of {', '.join(MODES)}")
    return mode


def _redirect(found: str) -> TCPAddress | None:
    return parse_tcp_address(found) if found else None


def _directory_url(found: str) -> str:
    if found and not (found.startswith("https://") and found.isprintable() and found.isascii() and " " not in found):
        raise ValueError("the URL of an ACME server's directory, https://")
    return found


CERTIFICATE = Key("http.tls.certificate", *_PATH)
KEY = Key("http.tls.key", *_PATH)
CERTIFICATES: Key[tuple[KeyPair, ...]] = Key(
    "http.tls.certificates",
    list_of(section(KeyPair, {"certificate": _PATH, "key": _PATH}, ("certificate", "key")), "{certificate: /etc/b.pem, key: /etc/b.key}"),
    (),
)
CLIENTCAS: Key[tuple[str, ...]] = Key("http.tls.clientcas", list_of(_PATH[0], "/etc/ssl/clients.pem"), ())
CLIENTAUTH: Key[ClientAuth | None] = Key("http.tls.clientauth", from_text(_mode, lambda found: found or ""), None)
MINIMUM: Key[MinimumTLS] = Key("http.tls.minimumtls", _MINIMUM, "tls1.2")
SUITES: Key[tuple[str, ...]] = Key("http.tls.ciphersuites", list_of(choice(*_SUITES), _SUITES[4]), ())
REDIRECT: Key[TCPAddress | None] = Key("http.tls.redirect", from_text(_redirect, lambda found: str(found or "")), None)
HSTS_MAXAGE = Key("http.tls.hsts.maxage", duration(), 0.0)
HSTS_SUBDOMAINS = Key("http.tls.hsts.includesubdomains", boolean(), default=False)

CACHEFILE = Key("http.tls.letsencrypt.cachefile", *_PATH)
HOSTS: Key[tuple[str, ...]] = Key("http.tls.letsencrypt.hosts", list_of(from_text(host_name, shown), "hub.example.com"), ())
EMAIL = Key("http.tls.letsencrypt.email", text(), "")
DIRECTORYURL = Key("http.tls.letsencrypt.directoryurl", from_text(_directory_url, shown), "")

#: ``Any``: they are of many types.
TLS_KEYS: tuple[Key[Any], ...] = (
    CERTIFICATE,
    KEY,
    CERTIFICATES,
    CLIENTCAS,
    CLIENTAUTH,
    MINIMUM,
    SUITES,
    REDIRECT,
    HSTS_MAXAGE,
    HSTS_SUBDOMAINS,
    CACHEFILE,
    HOSTS,
    EMAIL,
    DIRECTORYURL,
)


def read_tls(reading: Reading, addr: TCPAddress | UnixAddress) -> TLS | None:
    """
    ``http.tls``.

    :param addr: ``http.addr``.
    :returns: ``None`` for plain HTTP.
    """
    get = reading.get
    first = KeyPair(get(CERTIFICATE), get(KEY))
    if bool(first.certificate) != bool(first.key):
        given, missing = (CERTIFICATE, KEY) if first.certificate else (KEY, CERTIFICATE)
        reading.errors.append(ConfigError(f"{missing.path}: found nothing beside {given.path}, allowed: both, or neither of them"))
        return None
    letsencrypt = _letsencrypt(reading)
    if letsencrypt is not None and first.certificate:
        found = f"{CACHEFILE.path}: found it beside {CERTIFICATE.path}"
        reading.errors.append(ConfigError(f"{found}, allowed: one of them, as in registry:2"))
    pairs = ((first,) if first.certificate else ()) + (letsencrypt.pairs() if letsencrypt is not None else ()) + get(CERTIFICATES)
    if not pairs:
        _refuse_without(reading)
        return None
    cas, auth = get(CLIENTCAS), get(CLIENTAUTH)
    if cas and auth is None:
        auth = "require-and-verify-client-cert"
    if not cas and auth is not None and "verify" in auth:
        allowed = "the files of those who issue clients' certificates; without them none can be verified"
        reading.errors.append(ConfigError(f"{CLIENTCAS.path}: found nothing beside {CLIENTAUTH.path}: {auth}, allowed: {allowed}"))
    suites, minimum = get(SUITES), get(MINIMUM)
    if suites and minimum == "tls1.3":
        reading.warnings.append(f"{SUITES.path}: nothing to do, because http.tls.minimumtls is tls1.3, whose suites are not to be chosen")
    redirect = get(REDIRECT)
    if letsencrypt is not None and redirect is None:
        # Where whoever gives out certificates looks whether a name is ours (RFC 8555, section 8.3).
        redirect = TCPAddress("", 80)
    if redirect is not None and isinstance(addr, UnixAddress):
        allowed = "nothing, because http.addr is a Unix socket, which no URL leads to"
        reading.errors.append(ConfigError(f"{REDIRECT.path}: found {redirect}, allowed: {allowed}"))
    return TLS(pairs, cas, auth, minimum, suites, redirect, HSTS(get(HSTS_MAXAGE), get(HSTS_SUBDOMAINS)), letsencrypt)


def _letsencrypt(reading: Reading) -> LetsEncrypt | None:
    get = reading.get
    found = LetsEncrypt(get(CACHEFILE).rstrip("/"), get(HOSTS), get(EMAIL), get(DIRECTORYURL))
    if found == LetsEncrypt("", ()):
        return None
    if not found.cachefile:
        allowed = "the directory that certificates are kept in; without it each start would ask for new ones"
        reading.errors.append(ConfigError(f"{CACHEFILE.path}: found nothing beside the rest of letsencrypt, allowed: {allowed}"))
    if not found.hosts:
        allowed = "the names that certificates are for; without them, whoever asks for any name would have one asked for"
        reading.errors.append(ConfigError(f"{HOSTS.path}: found nothing, allowed: {allowed}"))
    return found if found.cachefile and found.hosts else None


def _refuse_without(reading: Reading) -> None:
    """What is said of TLS where there is none: it must not be plain text that is served to who believes that it is not."""
    # Any: they are of many types.
    wanted: tuple[Key[Any], ...] = (CLIENTCAS, CLIENTAUTH, REDIRECT, HSTS_MAXAGE)
    useless: tuple[Key[Any], ...] = (MINIMUM, SUITES, HSTS_SUBDOMAINS)
    for key in wanted:
        if reading.get(key) != key.default:
            allowed = "http.tls.certificate and http.tls.key beside it"
            reading.errors.append(ConfigError(f"{key.path}: found it without a certificate, allowed: {allowed}"))
    for key in useless:
        if reading.get(key) != key.default:
            reading.warnings.append(f"{key.path}: nothing to do without http.tls.certificate")

"""The keys of registry:2, from 2.5 to 3.x, that regd knows and does not obey, and what happens instead.

Later versions of regd move them to :mod:`regd.config.keys`.
"""

from __future__ import annotations

from regd.config.schema import Ignored, Refused, Row
from regd.config.values import Inner

__all__ = ["FOREIGN"]

_REDIS = "redis is not used; regd needs no cache that processes share"
_EXEC = "no program is asked for credentials; they are proxy.username and proxy.password"
_WRITE = "a fetch goes on for as long as bytes come"
_REPORTING = "errors are reported to the log only"
_MIDDLEWARE = "middleware does not run; regd sends every blob itself"
_SCHEMA1 = "manifests of schema 1 are refused"

_DRIVERS = "filesystem or inmemory"
_NO_DRIVER = "this version does not have the driver"
_NO_AUTH = "this version does not have this way to log in, and must not start open where the configuration says that it is protected"


def _ignored(section: str, instead: str, names: str, switch: str = "") -> list[Row]:
    """Rows of one section that share their answer.

    :param names: separated by spaces.
    """
    return [Ignored(f"{section}.{name}", instead, switch=switch) for name in names.split()]


def _items(names: str) -> tuple[Inner, ...]:
    """The levels of a list of maps with these names, separated by spaces."""
    return (Inner(""), Inner("[]"), *(Inner(f"[].{name}") for name in names.split()))


def _drivers() -> list[Row]:
    return [
        Refused(f"storage.{name}", f"{_NO_DRIVER} {name}", _DRIVERS, presence=True)
        for name in ("s3", "s3aws", "s3goamz", "gcs", "azure", "swift", "oss")
    ]


FOREIGN: tuple[Row, ...] = (
    Ignored("log.reportcaller", "log lines do not name the place in the code", harmless=("false",)),
    Ignored(
        "log.hooks",
        "no mail is sent for log lines",
        inner=_items(
            "type disabled levels levels[] options.smtp.addr options.smtp.username options.smtp.password options.smtp.insecure"
            " options.from options.to options.to[]",
        ),
    ),
    *_drivers(),
    Ignored("storage.tag.concurrencylimit", "tags are looked up within storage.filesystem.maxthreads"),
    Refused("auth.*", _NO_AUTH, "htpasswd, token, silly or none", presence=True),
    Ignored("auth.none", "every client may do everything", harmless=("",), free=True),
    *(
        Ignored(f"middleware.{place}", _MIDDLEWARE, inner=_items("name disabled options options.*"))
        for place in ("registry", "repository", "storage")
    ),
    *_ignored("reporting", _REPORTING, "bugsnag.apikey bugsnag.releasestage bugsnag.endpoint"),
    *_ignored("reporting", _REPORTING, "newrelic.licensekey newrelic.name newrelic.verbose"),
    Ignored("http.h2c.enabled", "regd speaks HTTP/1.1", harmless=("false",)),
    *_ignored("redis", _REDIS, "addr username password db dialtimeout readtimeout writetimeout"),
    *_ignored("redis", _REDIS, "pool.maxidle pool.maxactive pool.idletimeout tls.enabled tls.certificate tls.key"),
    Ignored("redis.addrs", _REDIS, inner=(Inner(""), Inner("[]"))),
    Ignored("redis.tls.clientcas", _REDIS, inner=(Inner(""), Inner("[]"))),
    Ignored("redis.tls.rootcas", _REDIS, inner=(Inner(""), Inner("[]"))),
    *_ignored("redis", _REDIS, "clientname protocol sentinelusername sentinelpassword mastername maxredirects"),
    *_ignored("redis", _REDIS, "maxretries minretrybackoff maxretrybackoff contexttimeoutenabled poolfifo poolsize pooltimeout"),
    *_ignored("redis", _REDIS, "minidleconns maxidleconns maxactiveconns connmaxidletime connmaxlifetime"),
    *_ignored("redis", _REDIS, "readonly routebylatency routerandomly disableidentity identitysuffix unstableresp3"),
    *_ignored("proxy", _EXEC, "exec.command exec.lifetime"),
    Ignored("proxy.cachewritetimeout", _WRITE),
    Refused("proxy.remotenamespace", "names at an upstream are what follows the prefix here, and are not changed otherwise", "nothing"),
    Ignored("compatibility.schema1.enabled", _SCHEMA1, harmless=("false",)),
    Ignored("compatibility.schema1.signingkeyfile", _SCHEMA1),
    Ignored("policy.repository.classes", "images of every class are taken", inner=(Inner(""), Inner("[]"))),
)

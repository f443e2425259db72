"""
What is measured: regd, and what people run today. Each candidate is a few programs with their configuration files. Those that are a
registry get the very same ``config.yml``, and all of them the same access log, to a file.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import bcrypt

from benchmarks.wire import HOST
from tests.e2e.certificates import Authority, Certificate
from tests.e2e.peers import PROXYING
from tests.e2e.process import SEARCH_PATH, free_port

__all__ = [
    "CACHE",
    "CANDIDATES",
    "GUARDED",
    "NGINX",
    "NGINX_CACHE",
    "NGINX_PROXY",
    "NGINX_REGISTRY",
    "NGINX_SECURE",
    "OPEN",
    "PASSWORD",
    "PROXY",
    "PROXY_REGISTRY",
    "REGD",
    "REGISTRY",
    "REGISTRY_CACHE",
    "SECURE",
    "SECURE_REGISTRY",
    "USER",
    "Candidate",
    "Place",
    "Start",
    "find",
    "prepare_fixed",
    "regd_with",
    "version_in",
    "versions",
]

#: Somebody who may pull, and more.
USER: Final = "robot"
PASSWORD: Final = "hunter2"

_ROOT: Final = Path(__file__).resolve().parent.parent

#: What the image of registry:2 comes with, on another port and directory.
_REGISTRY_YML: Final = """\
version: 0.1
log:
  level: info
  accesslog:
    disabled: {no_access_log}
  fields:
    service: registry
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: {data}
  delete:
    enabled: true
http:
  addr: 127.0.0.1:{port}
  secret: asecretforthebenchmark
  headers:
    X-Content-Type-Options: [nosniff]
"""

#: What both nginx.conf have in common: Debian's settings, with files that any user may write, and connections that are kept for as long
#: as the load takes.
_NGINX_CONF: Final = """\
daemon off;
{user}worker_processes auto;
pid {directory}/{name}.pid;
error_log stderr;
events {{
    worker_connections 1024;
    use epoll;
    multi_accept on;
}}
http {{
    access_log {access_log};
    client_body_temp_path {directory}/{name}-body;
    proxy_temp_path {directory}/{name}-proxy;
    fastcgi_temp_path {directory}/{name}-fastcgi;
    uwsgi_temp_path {directory}/{name}-uwsgi;
    scgi_temp_path {directory}/{name}-scgi;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_requests 1000000000;
{rest}}}
"""

#: A server of files, for the registry's own tree of them.
_STATIC: Final = """\
    server {{
        listen 127.0.0.1:{port};
        root {data};
    }}
"""

#: The same below /v2/, for those who stand in front of it.
_STATIC_BELOW: Final = """\
    server {{
        listen 127.0.0.1:{port};
        location /v2/ {{ alias {data}/; }}
    }}
"""

#: What nginx.conf says in front of a registry, said to regd.
_PROXY_YML: Final = """\
version: 0.1
log:
  level: info
  accesslog:
    disabled: {no_access_log}
http:
  addr: 127.0.0.1:{port}
reverseproxy:
  routes:
    - {{path: /v1/, status: 404}}
    - {{path: /v2/, upstreams: ["http://127.0.0.1:{upstream}"]}}
"""

#: What caches fetch from: the registry's files, by the paths of its API.
_ORIGIN: Final = """\
    server {{
        listen 127.0.0.1:{port};
        location = /v2/ {{ return 200 "{{}}"; }}
        location ~ "^/v2/.+/blobs/([a-z0-9]+):(..)(.+)$" {{ alias "{data}/docker/registry/v2/blobs/$1/$2/$2$3/data"; }}
    }}
"""

#: nginx as a cache, set up for what the others do: one fetch, and a blob is good for ever.
_CACHING: Final = """\
    proxy_cache_path {directory}/cached levels=1:2 keys_zone=blobs:10m max_size=20g inactive=30d use_temp_path=off;
    server {{
        listen 127.0.0.1:{port};
        location /v2/ {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_cache blobs;
            proxy_cache_valid 200 30d;
            proxy_cache_lock on;
            proxy_cache_lock_age 300s;
            proxy_cache_lock_timeout 300s;
        }}
    }}
"""

#: One that answers from memory, and so shows what a request costs at least.
_FIXED: Final = """\
    server {{
        listen 127.0.0.1:{port};
        return 200 "{{}}";
    }}
"""


@dataclass(frozen=True)
class Place:
    """
    Where and how a candidate is to run.

    :ivar directory: for its configuration and its logs; absolute.
    :ivar data: the root directory of its storage; absolute.
    :ivar port: where it is to listen, on 127.0.0.1.
    :ivar access_log: whether it logs each request, to a file.
    """

    directory: Path
    data: Path
    port: int
    access_log: bool


@dataclass(frozen=True)
class Start:
    """
    One program of a candidate.

    :ivar command: its command line.
    :ivar port: where it listens.
    :ivar ready: the statuses of ``GET /v2/`` that say it does its work.
    :ivar environment: the variables that it needs besides ``PATH`` and ``LANG``.
    :ivar secure: whether it speaks TLS.
    """

    command: tuple[str, ...]
    port: int
    ready: frozenset[int] = frozenset({200})
    environment: Mapping[str, str] = field(default_factory=dict)
    secure: bool = False


@dataclass(frozen=True)
class Candidate:
    """
    Something that can be measured.

    :ivar name: what tables call it.
    :ivar programs: what has to be installed for it.
    :ivar prepare: writes its configuration and says what to start, in this order.
    :ivar secure: whether it speaks TLS to clients.
    """

    name: str
    programs: tuple[str, ...]
    prepare: Callable[[Place], list[Start]]
    secure: bool = False

    def missing(self) -> list[str]:
        """The programs that are not installed."""
        return [program for program in self.programs if find(program) is None]

    def blob_path(self, repository: str, digest: str) -> str:
        """The path of a blob's URL."""
        if self.name == NGINX.name:
            algorithm, _, encoded = digest.partition(":")
            return f"/docker/registry/v2/blobs/{algorithm}/{encoded[:2]}/{encoded}/data"
        if self.name in {PROXY.name, NGINX_PROXY.name}:
            algorithm, _, encoded = digest.partition(":")
            return f"/v2/docker/registry/v2/blobs/{algorithm}/{encoded[:2]}/{encoded}/data"
        return f"/v2/{repository}/blobs/{digest}"


def find(program: str) -> str | None:
    """Where a program is; Debian keeps daemons where the path of a user may not lead."""
    return shutil.which(program, path=SEARCH_PATH)


def _write_registry_yml(place: Place, name: str, port: int) -> str:
    path = place.directory / f"{name}.yml"
    text = _REGISTRY_YML.format(data=place.data, port=port, no_access_log=str(not place.access_log).lower())
    path.write_text(text, encoding="utf-8")
    return str(path)


def _nginx(place: Place, name: str, rest: str, ready: frozenset[int]) -> Start:
    path = place.directory / f"{name}.conf"
    # As root its workers would become a user that may not read what is in a directory of ours.
    user = "user root;\n" if os.geteuid() == 0 else ""
    access_log = f"{place.directory}/{name}-access.log" if place.access_log else "off"
    text = _NGINX_CONF.format(directory=place.directory, name=name, user=user, access_log=access_log, rest=rest)
    path.write_text(text, encoding="utf-8")
    # Its own log, until it has read where that is, is in a place that only root may write to.
    return Start((find("nginx") or "nginx", "-c", str(path), "-p", str(place.directory), "-e", "stderr"), place.port, ready)


def _start_regd(place: Place) -> list[Start]:
    return [_regd_at(place, _write_registry_yml(place, "regd", place.port), frozenset({200}))]


def _regd_at(place: Place, path: str, ready: frozenset[int]) -> Start:
    twistd = str(Path(sys.executable).with_name("twistd"))
    try:
        importlib.metadata.version("regd")
        environment = {}
    except importlib.metadata.PackageNotFoundError:
        environment = {"PYTHONPATH": str(_ROOT)}
    return Start((twistd, "--nodaemon", "--pidfile=", "regd", "-c", path), place.port, ready, environment=environment)


def _start_registry(place: Place) -> list[Start]:
    return [_registry_at(place, place.port)]


def _registry_at(place: Place, port: int) -> Start:
    return _registry_with(_write_registry_yml(place, "docker-registry", port), port)


def _registry_with(path: str, port: int) -> Start:
    return Start((find("docker-registry") or "docker-registry", "serve", path), port, environment={"OTEL_TRACES_EXPORTER": "none"})


def _start_nginx_registry(place: Place) -> list[Start]:
    upstream = free_port()
    rest = PROXYING.format(upstream=upstream, port=place.port)
    return [_registry_at(place, upstream), _nginx(place, "nginx-registry", rest, frozenset({200}))]


def _start_static(place: Place) -> list[Start]:
    # It has no /v2/, and says so as soon as it serves.
    return [_nginx(place, "nginx", _STATIC.format(port=place.port, data=place.data), frozenset({404}))]


def _files_at(place: Place, port: int) -> Start:
    # There is no page at /v2/, and it says so as soon as it serves.
    return replace(_nginx(place, "nginx-files", _STATIC_BELOW.format(port=port, data=place.data), frozenset({403})), port=port)


def _start_nginx_proxy(place: Place) -> list[Start]:
    upstream = free_port()
    rest = PROXYING.format(upstream=upstream, port=place.port)
    return [_files_at(place, upstream), _nginx(place, "nginx-proxy", rest, frozenset({403}))]


def _proxy_at(place: Place, upstream: int, ready: frozenset[int]) -> Start:
    path = place.directory / "proxy.yml"
    text = _PROXY_YML.format(port=place.port, upstream=upstream, no_access_log=str(not place.access_log).lower())
    path.write_text(text, encoding="utf-8")
    return _regd_at(place, str(path), ready)


def _start_proxy(place: Place) -> list[Start]:
    upstream = free_port()
    return [_files_at(place, upstream), _proxy_at(place, upstream, frozenset({403}))]


def _start_proxy_registry(place: Place) -> list[Start]:
    upstream = free_port()
    return [_registry_at(place, upstream), _proxy_at(place, upstream, frozenset({200}))]


def _origin_at(place: Place, port: int) -> Start:
    # What a cache has kept is no part of what it begins with.
    shutil.rmtree(place.directory / "cached", ignore_errors=True)
    (place.directory / "cached").mkdir()
    return replace(_nginx(place, "nginx-origin", _ORIGIN.format(port=port, data=place.data), frozenset({200})), port=port)


def _write_cache_yml(place: Place, name: str, upstream: int) -> str:
    """registry:2's form, which both understand."""
    path = Path(_write_registry_yml(replace(place, data=place.directory / "cached"), name, place.port))
    path.write_text(f"{path.read_text(encoding='utf-8')}proxy:\n  remoteurl: http://127.0.0.1:{upstream}\n", encoding="utf-8")
    return str(path)


def _start_cache(place: Place) -> list[Start]:
    upstream = free_port()
    return [_origin_at(place, upstream), _regd_at(place, _write_cache_yml(place, "regd", upstream), frozenset({200}))]


def _start_registry_cache(place: Place) -> list[Start]:
    upstream = free_port()
    return [_origin_at(place, upstream), _registry_with(_write_cache_yml(place, "docker-registry", upstream), place.port)]


def _start_nginx_cache(place: Place) -> list[Start]:
    upstream = free_port()
    rest = _CACHING.format(directory=place.directory, upstream=upstream, port=place.port)
    return [_origin_at(place, upstream), _nginx(place, "nginx-cache", rest, frozenset({200}))]


def _certificate(place: Place) -> Certificate:
    return Authority(place.directory / "authority").issue(HOST)


def _tls_variables(place: Place) -> dict[str, str]:
    """What has a registry of either make speak TLS."""
    certificate = _certificate(place)
    return {"REGISTRY_HTTP_TLS_CERTIFICATE": str(certificate.certfile), "REGISTRY_HTTP_TLS_KEY": str(certificate.keyfile)}


def _with_tls(start: Start, place: Place) -> Start:
    return replace(start, environment={**start.environment, **_tls_variables(place)}, secure=True)


def _start_secure(place: Place) -> list[Start]:
    return [_with_tls(start, place) for start in _start_regd(place)]


def _start_secure_registry(place: Place) -> list[Start]:
    return [_with_tls(start, place) for start in _start_registry(place)]


def _start_nginx_secure(place: Place) -> list[Start]:
    """As people have nginx terminate TLS for a registry."""
    upstream, certificate = free_port(), _certificate(place)
    rest = PROXYING.format(upstream=upstream, port=f"{place.port} ssl")
    files = (
        f"    ssl_certificate {certificate.certfile};\n    ssl_certificate_key {certificate.keyfile};\n    ssl_protocols TLSv1.2 TLSv1.3;\n"
    )
    started = _nginx(place, "nginx-secure", files + rest, frozenset({200}))
    return [_registry_at(place, upstream), replace(started, secure=True)]


#: For a repository that everybody may read, as in docs/access.rst.
_ACCESS: Final = {
    "REGISTRY_ACCESS": "[{who: anonymous, repositories: 'bench/**', actions: [pull]}, {who: '*', repositories: '**', actions: [push]},"
    " {who: '@ci', repositories: ['team/**', 'public/*/x'], actions: [pull, push, delete]}]",
    "REGISTRY_GROUPS": "{ci: [robot1, robot2]}",
}


def _start_guarded(place: Place) -> list[Start]:
    passwords = place.directory / "htpasswd"
    passwords.write_text(f"{USER}:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(5)).decode()}\n", encoding="ascii")
    auth = {"REGISTRY_AUTH": f"{{htpasswd: {{realm: bench, path: {passwords}}}}}"}
    # /v2/ is not for those without a name.
    return [replace(start, environment={**start.environment, **_ACCESS, **auth}, ready=frozenset({401})) for start in _start_regd(place)]


def prepare_fixed(place: Place) -> list[Start]:
    """An nginx that answers everything with ``{}``; no candidate, but what the machine can do."""
    return [_nginx(place, "nginx-fixed", _FIXED.format(port=place.port), frozenset({200}))]


REGD: Final = Candidate("regd", (), _start_regd)
REGISTRY: Final = Candidate("docker-registry", ("docker-registry",), _start_registry)
NGINX_REGISTRY: Final = Candidate("nginx+registry", ("docker-registry", "nginx"), _start_nginx_registry)
NGINX: Final = Candidate("nginx", ("nginx",), _start_static)
#: Both in front of an nginx with files, so that what is compared is who passes on.
PROXY: Final = Candidate("regd+nginx", ("nginx",), _start_proxy)
NGINX_PROXY: Final = Candidate("nginx+nginx", ("nginx",), _start_nginx_proxy)
PROXY_REGISTRY: Final = Candidate("regd+registry", ("docker-registry",), _start_proxy_registry)
#: All three before an nginx with files, as caches that begin with nothing.
CACHE: Final = Candidate("regd-cache", ("nginx",), _start_cache)
REGISTRY_CACHE: Final = Candidate("registry-cache", ("docker-registry", "nginx"), _start_registry_cache)
NGINX_CACHE: Final = Candidate("nginx-cache", ("nginx",), _start_nginx_cache)

#: All three speak TLS.
SECURE: Final = Candidate("regd-tls", (), _start_secure, secure=True)
SECURE_REGISTRY: Final = Candidate("registry-tls", ("docker-registry",), _start_secure_registry, secure=True)
NGINX_SECURE: Final = Candidate("nginx-tls+registry", ("docker-registry", "nginx"), _start_nginx_secure, secure=True)
#: The same daemon twice: one looks who may do what, the other does not.
GUARDED: Final = Candidate("regd-access", (), _start_guarded)
OPEN: Final = Candidate("regd-open", (), _start_regd)

#: By name, in the order in which they take turns.
CANDIDATES: Final = {
    candidate.name: candidate
    for candidate in (
        REGD,
        REGISTRY,
        NGINX_REGISTRY,
        NGINX,
        PROXY,
        NGINX_PROXY,
        PROXY_REGISTRY,
        CACHE,
        REGISTRY_CACHE,
        NGINX_CACHE,
        SECURE,
        SECURE_REGISTRY,
        NGINX_SECURE,
        GUARDED,
        OPEN,
    )
}


def regd_with(variables: Mapping[str, str]) -> Candidate:
    """
    The daemon with some of its settings changed.

    :param variables: ``REGISTRY_*``, see ``docs/configuration.rst``.
    """

    def prepare(place: Place) -> list[Start]:
        return [replace(start, environment={**start.environment, **variables}) for start in _start_regd(place)]

    return replace(REGD, prepare=prepare)


#: Run by the interpreter that runs regd.
_REGD_VERSIONS: Final = "import platform, regd, twisted; print(regd.__version__, twisted.__version__, platform.python_version())"


def versions() -> dict[str, str]:
    """The version of everything that takes part, by name; those that are not installed are left out."""
    regd, twisted, python = _output(sys.executable, "-c", _REGD_VERSIONS).split()
    found = {"regd": regd, "Twisted": twisted, "Python": python, "Linux": os.uname().release}
    for program, argument in (("docker-registry", "--version"), ("nginx", "-v"), ("wrk", "-v")):
        path = find(program)
        if path is not None:
            found[program] = version_in(_output(path, argument))
    return found


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, cwd=_ROOT)
    return done.stdout + done.stderr


def version_in(text: str) -> str:
    """The first word with a digit and a dot in what a program says of itself: ``nginx version: nginx/1.22.1``."""
    words = [word.rpartition("/")[2] for word in text.split()]
    return next((word for word in words if "." in word and any(map(str.isdigit, word))), "unknown")

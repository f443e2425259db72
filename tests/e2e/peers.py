"""nginx, as people have it in front of a registry today."""

from pathlib import Path

from tests.e2e.daemon import clean_environment
from tests.e2e.process import Program, free_port, need
from tests.e2e.rawhttp import Client

__all__ = ["PROXYING", "Nginx"]

# The server of the usual compose recipe: no limit of a body's size, nothing
# buffered, /v1/ refused.
PROXYING = """\
    proxy_http_version 1.1;
    upstream registry {{ server 127.0.0.1:{upstream}; }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        location /v1/ {{ return 404; }}
        location /v2/ {{
            proxy_pass http://registry/v2/;
            proxy_set_header Host $http_host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_buffering off;
            proxy_request_buffering off;
        }}
    }}
"""

# The nginx.conf of that recipe, with what a second nginx on the
# same machine, started by anybody, needs: its own port and its own files.
CONFIGURATION = """\
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 256; }}
http {{
    access_log {directory}/access.log;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    tcp_nodelay on;
{proxying}}}
"""


class Nginx:
    """
    nginx before a registry.

    :param directory: For its configuration, its log and its temporary files.
    :param upstream: The port of the registry.
    """

    def __init__(self, directory: Path, upstream: int) -> None:
        need("nginx")
        directory.mkdir(parents=True)
        self.port = free_port()
        self.client = Client(self.port)
        configuration = directory / "nginx.conf"
        configuration.write_text(
            CONFIGURATION.format(directory=directory, proxying=PROXYING.format(upstream=upstream, port=self.port)), encoding="utf-8"
        )
        self.program = Program(
            # Its own log, until it has read where that is, is in a place that only root may write to.
            ["/usr/sbin/nginx", "-c", str(configuration), "-p", str(directory), "-e", "stderr"],
            directory / "log",
            clean_environment(directory),
            directory,
        )

    def start(self) -> None:
        """Start it, and come back when it passes requests on."""
        self.program.start()
        self.program.wait_ready(self._answers)

    def _answers(self) -> bool:
        try:
            return self.client.get("/v2/").status == 200
        except OSError:
            return False

    def stop(self) -> None:
        """End it. Safe to call at any time."""
        self.program.stop()

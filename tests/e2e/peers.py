"""nginx, as people have it in front of a registry today."""

from pathlib import Path

from tests.e2e.daemon import Daemon
from tests.e2e.process import need

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


class Nginx(Daemon):
    """
    nginx before a registry.

    :param directory: For its configuration, its log and its temporary files.
    :param upstream: The port of the registry.
    """

    def __init__(self, directory: Path, upstream: int) -> None:
        need("nginx")
        super().__init__(directory)
        configuration = directory / "nginx.conf"
        configuration.write_text(
            CONFIGURATION.format(directory=directory, proxying=PROXYING.format(upstream=upstream, port=self.port)), encoding="utf-8"
        )
        # Its own log, until it has read where that is, is in a place that only root may write to.
        self.runs(["/usr/sbin/nginx", "-c", str(configuration), "-p", str(directory), "-e", "stderr"], {})

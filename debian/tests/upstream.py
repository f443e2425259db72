#!/usr/bin/python3
"""
A server that speaks TLS, and wants its clients to: upstream.py DIRECTORY PORT. Its certificate and key are made in DIRECTORY, as cert.pem
and key.pem, and are those of its clients as well. It answers every GET with "upstream".
"""

import datetime
import http.server
import ssl
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class Upstream(http.server.BaseHTTPRequestHandler):
    """Answers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        """One answer."""
        self.send_response(200)
        self.send_header("Content-Length", "8")
        self.end_headers()
        self.wfile.write(b"upstream")


directory, port = Path(sys.argv[1]), int(sys.argv[2])
key = ec.generate_private_key(ec.SECP256R1())
name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)  # noqa: UP017 - the Python of the test may be older
builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(days=1))
builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
certificate = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
(directory / "key.pem").write_bytes(private)
(directory / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
context.load_verify_locations(directory / "cert.pem")
context.verify_mode = ssl.CERT_REQUIRED
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Upstream)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()

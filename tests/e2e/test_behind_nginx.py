"""regd where ``registry:2`` stood, behind the nginx of the usual compose recipe, as it is before nginx is taken away."""

from typing import ClassVar
from urllib.parse import urljoin, urlsplit

from tests.e2e.case import ServerTestCase, Tool
from tests.e2e.images import OciLayout, noise
from tests.e2e.peers import Nginx
from tests.e2e.rawhttp import digest_of


class BehindNginxTest(ServerTestCase):
    nginx: ClassVar[Nginx]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.nginx = Nginx(cls.directory / "nginx", cls.server.port)
        cls.run_for_all(cls.nginx)

    def test_locations_lead_through_nginx(self) -> None:
        base = f"http://127.0.0.1:{self.nginx.port}/v2/a/b/blobs/uploads/"
        location = urljoin(base, self.nginx.client.begin_upload("a/b"))
        self.assertEqual(urlsplit(location)[:2], ("http", f"127.0.0.1:{self.nginx.port}"))
        content = noise(100_000)
        location = urljoin(base, self.nginx.client.append(location, content[:60_000]))
        self.assertEqual(urlsplit(location)[:2], ("http", f"127.0.0.1:{self.nginx.port}"))
        answer = self.nginx.client.commit(location, digest_of(content), content[60_000:])
        self.assertEqual(answer.status, 201)
        blob = urljoin(base, answer.headers["location"])
        self.assertEqual(urlsplit(blob)[:2], ("http", f"127.0.0.1:{self.nginx.port}"))
        self.assertEqual(self.nginx.client.get(blob).body, content)

    def test_https_before_nginx_is_kept(self) -> None:
        # What an nginx that ends TLS tells: the client came by https.
        answer = self.server.client.request(
            "POST", "/v2/a/b/blobs/uploads/", b"", Host="registry.example", X_Forwarded_Proto="https"
        )
        location = urljoin("https://registry.example/v2/", answer.headers["location"])
        self.assertEqual(urlsplit(location)[:2], ("https", "registry.example"))

    def test_an_image_there_and_back(self) -> None:
        skopeo = Tool(self.directory, "skopeo", "--insecure-policy")
        layout = OciLayout(self.directory / "layout")
        image = layout.tag("image", layout.add_image("amd64", [noise(2_000_000)]))
        remote = f"docker://127.0.0.1:{self.nginx.port}/library/app:1"
        pulled = self.directory / "pulled"
        skopeo.run("copy", "--dest-tls-verify=false", image, remote)
        skopeo.run("copy", "--src-tls-verify=false", remote, f"dir:{pulled}")
        for blob in pulled.iterdir():
            if len(blob.name) == 64:
                self.assertEqual(digest_of(blob.read_bytes()), f"sha256:{blob.name}")

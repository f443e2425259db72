"""The page of a daemon with workers has what ``docs/metrics.rst``, the dashboard and the alerts name, and nothing else."""

from __future__ import annotations

import json
import re

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.daemon import Peer, Regd
from tests.e2e.group import GroupTestCase
from tests.e2e.images import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from tests.e2e.process import free_port, wait_until
from tests.e2e.rawhttp import Client
from tests.e2e.receiver import Receiver
from tests.telemetry.promql import parse
from tests.telemetry.test_metrics_page import ALERTS, DASHBOARD, PAGE, ROW, expressions

CONFIGURATION = """\
version: 0.1
log: {{level: info}}
storage:
  filesystem: {{rootdirectory: {data}}}
  delete: {{enabled: true}}
  maintenance:
    garbagecollect: {{interval: 1s, grace: 4s}}
    uploadpurging: {{enabled: true, interval: 1s, age: 1s, dryrun: false}}
http:
  addr: 127.0.0.1:{port}
  secret: asecret
  workers: 2
  debug: {{addr: "127.0.0.1:{debug}", prometheus: {{enabled: true}}}}
health:
  storagedriver: {{enabled: true}}
proxy:
  upstreams:
    - {{prefix: hub, remoteurl: "http://127.0.0.1:{nobody}"}}
  cache: {{interval: 1s}}
notifications:
  endpoints:
    - {{name: somebody, url: "{hook}", timeout: 1s, threshold: 1, backoff: 1s}}
"""


class MetricsTest(GroupTestCase):
    def make_with(self, debug: int) -> Regd:
        """
        :param debug: The port of the page.
        :return: A daemon with two workers, that has all its chores done all the time, and tells somebody of all that happens.
        """
        receiver = Receiver()
        self.addCleanup(receiver.stop)
        receiver.start()
        server = Regd(self.directory / self._testMethodName)
        text = CONFIGURATION.format(data=server.data, port=server.port, debug=debug, nobody=free_port(), hook=receiver.url)
        server.configuration.write_text(text, encoding="utf-8")
        self.addCleanup(server.stop)
        server.start()
        self.wait_ready(server, 2)
        return server

    def test_every_metric(self) -> None:
        """After a push, a pull and a run of each chore every metric that the documentation names has a value, with the labels it says."""
        debug = free_port()
        server = self.make_with(debug)
        client, operator = server.client, Client(debug)
        config, layer = client.push_blob("some/image", b"{}"), client.push_blob("some/image", bytes(3000))
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": config, "size": 2},
            "layers": [{"mediaType": OCI_LAYER, "digest": layer, "size": 3000}],
        }
        pushed = client.push_manifest("some/image", "latest", OCI_MANIFEST, json.dumps(document).encode())
        self.assertEqual(client.get("/v2/some/image/manifests/latest").headers["docker-content-digest"], pushed)
        self.assertEqual(len(client.get(f"/v2/some/image/blobs/{layer}").body), 3000)
        self.assertEqual(client.get("/v2/hub/image/manifests/latest").status, 502)
        self.assertEqual(client.request("DELETE", f"/v2/some/image/manifests/{pushed}").status, 202)

        def page() -> str:
            return operator.get("/metrics").body.decode()

        for chore in ("collection", "purge", "eviction"):
            wait_until(lambda chore=chore: f'regd_chore_last_finished{{chore="{chore}"}} 1.0' in page(), 30, chore)  # type: ignore[misc]  # bound now
        # Config, layer and manifest, of which nothing is left.
        wait_until(
            lambda: 'regd_chore_removed_total{chore="collection",what="blobs"} 3.0' in page(), 30, "what was deleted to be collected"
        )
        wait_until(lambda: 'registry_notifications_status_total{code="200 OK"' in page(), 30, "events to be taken")
        text = page()
        families = {family.name: family for family in text_string_to_metric_families(text)}
        found: dict[str, tuple[str, set[str]]] = {}
        for family in families.values():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = {label for sample in family.samples for label in sample.labels}
            self.assertTrue(family.samples, name)
            found[name] = (family.type, labels - {"le"})
        documented = {
            name: (kind, set(re.findall("``([a-z]+)``", labels))) for name, kind, labels, _ in ROW.findall(PAGE.read_text(encoding="utf-8"))
        }
        self.assertEqual(found, documented)
        # What clients name is nowhere, and nobody can make series.
        self.assertNotIn("some/image", text)
        self.assertLess(len(text.splitlines()), 2000)

        samples = {sample.name for family in families.values() for sample in family.samples}
        rules = [rule["expr"] for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]
        board = [one for one in expressions(json.loads(DASHBOARD.read_text(encoding="utf-8"))) if not one.startswith("label_values")]
        for expression in (*rules, *board):
            for name, _ in parse(expression).metrics:
                self.assertIn(name, {*samples, "up"}, expression)

        sent = {sample.labels["direction"]: sample.value for sample in families["regd_http_bytes"].samples}
        self.assertGreater(sent["out"], 3000)
        self.assertGreater(sent["in"], 3000)
        self.assertEqual({sample.value for sample in families["regd_workers"].samples}, {2.0})

    def test_the_names_of_the_peer(self) -> None:
        """What a dashboard for docker-registry asks for is there: names, kinds, labels and buckets. What Go has of itself is not."""
        found = []
        for kind in (Peer, Regd):
            port = free_port()
            settings = {"REGISTRY_HTTP_DEBUG_ADDR": f"127.0.0.1:{port}", "REGISTRY_HTTP_DEBUG_PROMETHEUS_ENABLED": "true"}
            server = kind(self.directory / kind.name, None, settings)
            self.addCleanup(server.stop)
            server.start()
            server.client.push_blob("some/image", b"x")
            server.client.get("/v2/some/image/tags/list")
            families = text_string_to_metric_families(Client(port).get("/metrics").body.decode())
            found.append({family.name: family for family in families if not family.name.startswith(("go_", "promhttp_"))})
        peer, ours = found
        self.assertGreater(len(peer), 10)
        for name, family in peer.items():
            self.assertIn(name, ours)
            self.assertEqual(ours[name].type, family.type, name)
            labels = [{label for sample in one.samples for label in sample.labels} for one in (family, ours[name])]
            self.assertLessEqual(labels[0], labels[1], name)
            bounds = [{sample.labels["le"] for sample in one.samples if "le" in sample.labels} for one in (family, ours[name])]
            self.assertLessEqual({float(bound) for bound in bounds[0]}, {float(bound) for bound in bounds[1]}, name)
            handlers = [{sample.labels.get("handler", "") for sample in one.samples} for one in (family, ours[name])]
            if name == "registry_http_requests":
                self.assertLessEqual(handlers[0], handlers[1])

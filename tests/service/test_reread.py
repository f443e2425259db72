"""Which parts of a configuration can change while the daemon runs."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from regd.config import Config, parse
from regd.service.reread import keep

BASE = b"""\
version: 0.1
storage: {filesystem: {rootdirectory: /a}}
http: {addr: "127.0.0.1:1"}
"""


def config(source: bytes) -> Config:
    return parse(source, "config.yml", {}).config


class KeepTests(SynchronousTestCase):
    def test_what_can_change(self) -> None:
        running = config(BASE)
        wanted = config(
            BASE.replace(b"http: {", b"http: {draintimeout: 3s, secret: x, prefix: /a/, headers: {A: [b]}, relativeurls: true, ").replace(
                b"/a}", b"/a}, delete: {enabled: true}, maintenance: {readonly: {enabled: true}}"
            )
            + b"log: {level: error, accesslog: {disabled: true}}\ncatalog: {maxentries: 5}\ntags: {maxtags: 5}\n"
        )
        self.assertEqual(keep(running, wanted), (wanted, ()))

    def test_what_cannot(self) -> None:
        running = config(BASE)
        for old, new, keys in (
            (b"127.0.0.1:1", b"127.0.0.1:2", ("http.addr",)),
            (b'addr: "127.0.0.1:1"', b"addr: /x, net: unix", ("http.addr",)),
            (b"http: {", b"http: {workers: 3, ", ("http.workers",)),
            (b"http: {", b"http: {debug: {addr: 'localhost:1'}, ", ("http.debug.addr",)),
            (b"http: {", b"tracing: {sampleratio: 0.5}\nhttp: {", ("tracing",)),
            (b"/a}", b"/b}", ("storage.filesystem.rootdirectory",)),
            (b"/a}", b"/a, maxthreads: 30}", ("storage.filesystem.maxthreads",)),
            (b"filesystem: {rootdirectory: /a}", b"inmemory: {}", ("storage",)),
            (b"/a}", b"/b, maxthreads: 30}", ("storage.filesystem.rootdirectory", "storage.filesystem.maxthreads")),
        ):
            self.assertIn(old, BASE)
            self.assertEqual(keep(running, config(BASE.replace(old, new))), (running, keys), new)

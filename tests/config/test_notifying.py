"""``notifications`` in the configuration."""

from __future__ import annotations

from regd.config.notifying import Endpoint, Ignore
from tests.config.support import MINIMAL, ConfigCase

ONE = "notifications:\n  endpoints:\n    - name: a\n      url: https://me:hunter2@hooks.example.com/x\n"


class NotificationsTests(ConfigCase):
    def test_nothing(self) -> None:
        found = self.load(MINIMAL).config.notifications
        self.assertEqual((found.endpoints, found.active, found.events.includereferences, found.maxsize), ((), (), False, 64 << 20))
        self.assertFalse(found.wanted("push", "a/b"))

    def test_everything(self) -> None:
        text = ONE + (
            "      headers: {Authorization: [Bearer 0123], X-More: [a, b]}\n"
            "      timeout: 500ms\n      threshold: 5\n      backoff: 3s\n      ignoredmediatypes: [x/y]\n"
            "      ignore: {mediatypes: [a/b], actions: [pull]}\n"
            "    - {name: b, disabled: true}\n"
            "  events: {includereferences: true}\n  maxsize: 1GiB\n"
        )
        loaded = self.load(MINIMAL + text)
        found = loaded.config.notifications
        self.assertEqual(loaded.warnings, ())
        endpoint, off = found.endpoints
        self.assertEqual((endpoint.timeout, endpoint.threshold, endpoint.backoff), (0.5, 5, 3.0))
        self.assertEqual(dict(endpoint.headers), {"Authorization": ("Bearer 0123",), "X-More": ("a", "b")})
        self.assertEqual((endpoint.ignoredmediatypes, endpoint.ignore), (("x/y",), Ignore(("a/b",), ("pull",))))
        self.assertEqual((found.active, off.disabled, found.events.includereferences, found.maxsize), ((endpoint,), True, True, 1 << 30))

    def test_environment(self) -> None:
        """The names that ``registry:2`` has for them."""
        found = self.load(
            MINIMAL + ONE, REGISTRY_NOTIFICATIONS_EVENTCONFIG_INCLUDEREFERENCES="true", REGISTRY_NOTIFICATIONS_ENDPOINTS_0_TIMEOUT="7s"
        ).config.notifications
        self.assertEqual((found.events.includereferences, found.endpoints[0].timeout), (True, 7.0))
        whole = "[{name: c, url: 'http://c/', threshold: 3}]"
        found = self.load(MINIMAL, REGISTRY_NOTIFICATIONS_ENDPOINTS=whole).config.notifications
        self.assertEqual(found.endpoints, (Endpoint("c", "http://c/", threshold=3),))

    def test_defaults_of_what_is_not_above_0(self) -> None:
        """As ``registry:2``."""
        (found,) = self.load(MINIMAL + ONE + "      timeout: 0s\n      threshold: -1\n      backoff: 0s\n").config.notifications.endpoints
        self.assertEqual((found.timeout, found.threshold, found.backoff), (1.0, 10, 1.0))

    def test_what_cannot_be(self) -> None:
        for text, where in (
            ("[{url: 'http://a/'}]", "notifications.endpoints[0]"),
            ("[{name: '', url: 'http://a/'}]", "notifications.endpoints[0]"),
            ("[{name: a}]", "notifications.endpoints[0]"),
            ("[{name: a, url: 'http://a/'}, {name: a, url: 'http://b/'}]", "notifications.endpoints"),
            ("[{name: a, url: 'http://a/', ignore: {actions: [pusch]}}]", "notifications.endpoints[0].ignore.actions[0]"),
            ("[{name: a, url: 'http://a/', headers: {'a b': [c]}}]", "notifications.endpoints[0].headers"),
            ("[{name: a, url: 'http://a/', timeout: soon}]", "notifications.endpoints[0].timeout"),
        ):
            self.refused(f"notifications: {{endpoints: {text}}}", where)
        self.refused(f"{ONE}  maxsize: 1MiB\n", "notifications.maxsize")

    def test_urls(self) -> None:
        for url in ("ftp://hunter2/", "http://", "hunter2", "http://a:hunter2/", "http://a:0/hunter2", "http://a/hunter 2", "http://[hunter2/"):
            line = self.refused(f"notifications: {{endpoints: [{{name: a, url: '{url}'}}]}}", "notifications.endpoints[0].url")
            self.assertNotIn("hunter", line)

    def test_secrets_are_not_shown(self) -> None:
        loaded = self.load(MINIMAL + ONE + "      headers: {Authorization: [hunter2]}\n")
        self.assertNotIn("hunter2", repr(loaded.config))

    def test_what_is_told_to_whom(self) -> None:
        endpoint = Endpoint("a", "http://a/", ignoredmediatypes=("x/y",), ignore=Ignore(("a/b",), ("pull",)))
        self.assertTrue(endpoint.wants("push", "c/d"))
        self.assertTrue(endpoint.wants("delete", ""))
        for action, media_type in (("pull", "c/d"), ("push", "x/y"), ("mount", "a/b")):
            self.assertFalse(endpoint.wants(action, media_type))

    def test_useless(self) -> None:
        (warning,) = self.warnings("notifications: {maxsize: 1GiB}\n")
        self.assertIn("nothing to do without notifications.endpoints", warning)

"""``auth``, ``access`` and ``groups``."""

from __future__ import annotations

from regd.config import Auth, Htpasswd, Rule
from tests.config.support import ConfigCase

HTPASSWD = "auth: {htpasswd: {realm: r, path: /p}}\n"


class AuthTests(ConfigCase):
    def test_htpasswd(self) -> None:
        self.assertEqual(self.config(HTPASSWD).auth, Auth(Htpasswd("r", "/p")))
        self.assertEqual(self.config("auth: {none: }").auth, Auth())
        variables = {"REGISTRY_AUTH_HTPASSWD_REALM": "r", "REGISTRY_AUTH_HTPASSWD_PATH": "/p"}
        self.assertEqual(self.config("", **variables).auth, Auth(Htpasswd("r", "/p")))

    def test_no_door_is_open_by_mistake(self) -> None:
        for text, start in (
            ("htpasswd", "auth.htpasswd (line 3): found a map, allowed: a map with realm and path"),
            ("{htpasswd: }", "auth.htpasswd (line 3): found a map, allowed: "),
            ("{none: , htpasswd: }", "auth.htpasswd (line 3): found a map, allowed: "),
            ("{htpasswd: {realm: r}}", "auth.htpasswd (line 3): found"),
            ("{htpasswd: {realm: r, path: p}}", 'auth.htpasswd.path (line 3): found "p", allowed: the absolute path'),
            ("{htpasswd: {realm: '', path: /p}}", 'auth.htpasswd.realm (line 3): found "", allowed: '),
        ):
            self.refused(f"auth: {text}", start)


class AccessTests(ConfigCase):
    def test_rules(self) -> None:
        found = self.config(
            HTPASSWD + "access:\n- {who: anonymous, repositories: 'a/**', actions: [pull]}\n"
            "- {who: ['@ci', bob, '*'], repositories: [a, 'b-*/c'], actions: [push, delete, catalog]}\ngroups: {ci: [x, y]}\n"
        )
        self.assertEqual(
            found.access,
            (Rule(("anonymous",), ("a/**",), ("pull",)), Rule(("@ci", "bob", "*"), ("a", "b-*/c"), ("push", "delete", "catalog"))),
        )
        self.assertEqual(found.groups, {"ci": ("x", "y")})
        self.assertIsNone(self.config(HTPASSWD).access)
        self.assertEqual(self.config("access: []").access, ())

    def test_what_is_no_rule(self) -> None:
        for text, start in (
            ("", "access (line 3): found nothing, allowed: a list of rules"),
            ("[{who: a, repositories: b}]", "access[0] (line 3): found"),
            ("[{who: [], repositories: b, actions: [pull]}]", "access[0].who (line 3): found a list"),
            ("[{who: 'a b', repositories: b, actions: [pull]}]", 'access[0].who (line 3): found "a b", allowed: the name'),
            ("[{who: '@', repositories: b, actions: [pull]}]", 'access[0].who (line 3): found "@", allowed: '),
            ("[{who: a, repositories: B, actions: [pull]}]", 'access[0].repositories (line 3): found "B", allowed: a pattern'),
            ("[{who: a, repositories: 'a//b', actions: [pull]}]", "access[0].repositories (line 3): found "),
            ("[{who: a, repositories: 'a**', actions: [pull]}]", "access[0].repositories (line 3): found "),
            ("[{who: a, repositories: b, actions: [read]}]", 'access[0].actions[0] (line 3): found "read", allowed: '),
            ("[{who: '@x', repositories: b, actions: [pull]}]", "access[0] (line 3): found the group @x, allowed: none"),
        ):
            self.refused(f"access: {text}", start)

    def test_what_cannot_come_true_is_said(self) -> None:
        unknown, *_ = self.warnings("access: [{who: bob, repositories: b, actions: [pull]}]")
        self.assertIn("nobody can be bob, because auth says no way to log in", "".join(unknown))
        self.assertIn("nothing to do without access", "".join(self.warnings("groups: {a: [b]}")[0]))

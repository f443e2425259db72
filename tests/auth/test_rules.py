"""What rules allow, compared with a plain reading of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.auth.rules import Rules, compile_pattern
from regd.auth.users import ANONYMOUS, Action, User
from regd.config.authvalues import Rule


def plainly(pattern: list[str], name: list[str]) -> bool:
    """
    :return: Whether a pattern matches, component by component.
    """
    if not pattern:
        return not name
    if pattern[0] == "**":
        return plainly(pattern[1:], name) or (bool(name) and plainly(pattern, name[1:]))
    return bool(name) and component(pattern[0], name[0]) and plainly(pattern[1:], name[1:])


def component(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return component(pattern[1:], text) or (bool(text) and component(pattern, text[1:]))
    return bool(text) and text[0] == pattern[0] and component(pattern[1:], text[1:])


COMPONENTS = st.text("ab.*", min_size=1, max_size=4).filter(lambda text: "**" not in text)
PATTERNS = st.lists(st.one_of(st.just("**"), COMPONENTS), min_size=1, max_size=4)
NAMES = st.lists(st.text("ab.", min_size=1, max_size=4), min_size=1, max_size=4)


class PatternTests(SynchronousTestCase):
    def test_table(self) -> None:
        for pattern, yes, no in (
            ("a", ["a"], ["b", "a/b", "aa"]),
            ("*", ["a", "a-b"], ["a/b"]),
            ("**", ["a", "a/b", "a/b/c"], []),
            ("team/*", ["team/a"], ["team", "team/a/b", "teams/a"]),
            ("team/**", ["team", "team/a", "team/a/b"], ["teams", "a/team", "team-a"]),
            ("**/base", ["base", "a/base", "a/b/base"], ["abase", "base/a"]),
            ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["a/bz", "az"]),
            ("team-*/x", ["team-/x", "team-a/x"], ["team/x", "team-a/b/x"]),
            ("a.b", ["a.b"], ["axb"]),
        ):
            for name in yes:
                self.assertTrue(compile_pattern(pattern).fullmatch(f"/{name}"), (pattern, name))
            for name in no:
                self.assertFalse(compile_pattern(pattern).fullmatch(f"/{name}"), (pattern, name))

    @given(PATTERNS, NAMES)
    def test_as_read_plainly(self, pattern: list[str], name: list[str]) -> None:
        found = compile_pattern("/".join(pattern)).fullmatch("/" + "/".join(name)) is not None
        self.assertEqual(found, plainly(pattern, name))


USERS = [ANONYMOUS, User("alice"), User("bob"), User("carol", frozenset({"shown"}))]
GROUPS = {"ci": ("bob",), "shown": ()}
WHO = st.sampled_from(["anonymous", "*", "alice", "bob", "@ci", "@shown"])
ACTIONS: list[Action] = ["pull", "push", "delete", "catalog"]
RULES = st.lists(
    st.builds(
        Rule,
        st.lists(WHO, min_size=1, max_size=2).map(tuple),
        st.lists(PATTERNS.map("/".join), min_size=1, max_size=2).map(tuple),
        st.lists(st.sampled_from(ACTIONS), max_size=3).map(tuple),
    ),
    max_size=3,
)


def called(user: User) -> set[str]:
    names = {"anonymous"}
    if user.name:
        names |= {"*", user.name, *(f"@{group}" for group in user.groups)}
        names |= {f"@{group}" for group, members in GROUPS.items() if user.name in members}
    return names


class RulesTests(SynchronousTestCase):
    @given(RULES, st.sampled_from(USERS), NAMES.map("/".join), st.sampled_from(ACTIONS))
    def test_as_read_plainly(self, rules: list[Rule], user: User, name: str, action: Action) -> None:
        expected = False
        for rule in rules:
            there = action == "catalog" or any(plainly(pattern.split("/"), name.split("/")) for pattern in rule.repositories)
            if action in rule.actions and there and called(user) & set(rule.who):
                expected = True
        self.assertEqual(Rules(rules, GROUPS).allows(user, name, action), expected)

    def test_without_rules(self) -> None:
        rules = Rules(None, {})
        self.assertTrue(rules.allows(User("alice"), "a", "delete"))
        self.assertFalse(rules.allows(ANONYMOUS, "a", "pull"))
        self.assertTrue(rules.name_helps)

    def test_nobody_is_called_as_a_word_of_the_rules(self) -> None:
        rules = Rules([Rule(("@ci",), ("**",), ("pull",))], {"ci": ("bob",)})
        self.assertFalse(rules.allows(User("ci"), "a", "pull"))
        self.assertFalse(rules.allows(ANONYMOUS, "a", "pull"))

    def test_a_name_is_of_no_help_where_all_are_equal(self) -> None:
        self.assertFalse(Rules([Rule(("anonymous",), ("**",), ("pull",))], {}).name_helps)
        self.assertFalse(Rules([], {}).name_helps)
        self.assertTrue(Rules([Rule(("anonymous", "alice"), ("**",), ("pull",))], {}).name_helps)

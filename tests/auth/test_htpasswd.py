"""Files of passwords, and checks by them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import bcrypt
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from regd.auth.authenticator import Busy, Refused
from regd.auth.htpasswd import MOST_WAITING, PasswordFile, Passwords
from regd.auth.users import User
from regd.config import ConfigError
from regd.storage.threads import Inline

ALICE = bcrypt.hashpw(b"wonder", bcrypt.gensalt(4))
LONG = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4))
FILE = b"# people\n\nalice:%s\nlong:%s\n" % (ALICE, LONG)


def said(name: str, password: bytes) -> str:
    return base64.b64encode(name.encode() + b":" + password).decode()


class Late:
    """Threads that begin when they are told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.waiting.append((done, lambda: function(*args, **kwargs)))
        return done

    def go_on(self) -> None:
        waiting, self.waiting = self.waiting, []
        for done, work in waiting:
            done.callback(work())


class FileTests(SynchronousTestCase):
    def parse(self, data: bytes) -> PasswordFile:
        return PasswordFile.parse("auth.htpasswd.path", "/etc/x", data)

    def test_lines(self) -> None:
        self.assertEqual(dict(self.parse(FILE).hashes), {"alice": ALICE, "long": LONG})
        self.assertEqual(dict(self.parse(b"a:%s\r\n b:%s " % (ALICE, ALICE)).hashes), {"a": ALICE, "b": ALICE})
        self.assertNotIn(ALICE.decode(), repr(self.parse(FILE)))

    def test_what_is_wrong_is_told_by_its_number(self) -> None:
        for line, problem in (
            (b"alice", "is not a name, a colon and a hash"),
            (b":" + ALICE, "is not a name, a colon and a hash"),
            (b"alice:{SHA}canary", "has no bcrypt hash"),
            (b"alice:" + ALICE[:-1], "has no bcrypt hash"),
            (b"alice:" + ALICE + b":more", "has no bcrypt hash"),
            (b"alice:" + ALICE.replace(b"$04$", b"$31$"), "has a hash of cost 31; 4 to 16 are allowed"),
            (b"\xff:" + ALICE, "has a name that is not UTF-8"),
            (b"bob:" + ALICE, "has a name that an earlier line has"),
        ):
            error = self.assertRaises(ConfigError, self.parse, b"bob:%s\n%s\n" % (ALICE, line))
            self.assertTrue(str(error).startswith(f"auth.htpasswd.path: /etc/x: line 2 {problem}"), error)
            self.assertNotIn("canary", str(error))

    @given(st.binary(max_size=200))
    def test_anything(self, data: bytes) -> None:
        try:
            found = self.parse(data)
        except ConfigError:
            return
        for name, hashed in found.hashes.items():
            self.assertIn(name.encode() + b":" + hashed, data)


class PasswordsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.late = Late()
        self.file = PasswordFile.parse("key", "/etc/x", FILE)
        self.slow = Passwords(self.file, 'a "realm"', self.late)
        self.quick = Passwords(self.file, "r", Inline())

    def test_challenge(self) -> None:
        self.assertEqual(self.slow.challenge("", (), ""), 'Basic realm="a \\"realm\\""')

    def test_right_and_wrong(self) -> None:
        self.assertEqual(self.quick.check(said("alice", b"wonder")), User("alice"))
        # What bcrypt does not look at is not looked at, as in registry:2.
        self.assertEqual(self.quick.check(said("long", b"x" * 80)), User("long"))
        for wrong in (
            said("alice", b"wonde"),
            said("alice", b""),
            said("bob", b"wonder"),
            said("Alice", b"wonder"),
            said("", b"wonder"),
            said("alice", b"wonder\0"),
            base64.b64encode(b"alice").decode(),
            base64.b64encode(b"\xff:x").decode(),
            "",
            "%%%",
            "\xe9",
        ):
            self.assertRaises(Refused, self.quick.check, wrong)

    def test_it_is_computed_elsewhere_and_once(self) -> None:
        first, second = self.slow.check(said("alice", b"wonder")), self.slow.check(said("alice", b"wonder"))
        assert isinstance(first, Deferred)
        assert isinstance(second, Deferred)
        self.assertNoResult(first)
        self.assertEqual(len(self.late.waiting), 1)
        self.late.go_on()
        self.assertEqual(self.successResultOf(first), User("alice"))
        self.assertEqual(self.successResultOf(second), User("alice"))
        self.assertEqual(self.slow.check(said("alice", b"wonder")), User("alice"))
        self.assertEqual(self.late.waiting, [])
        self.assertNotIn(b"wonder", repr(vars(self.slow)).encode())

    def test_a_wrong_one_is_not_remembered(self) -> None:
        for _ in range(2):
            answer = self.slow.check(said("alice", b"x"))
            assert isinstance(answer, Deferred)
            self.assertEqual(len(self.late.waiting), 1)
            self.late.go_on()
            self.failureResultOf(answer, Refused)

    def test_nobody_takes_as_long_as_somebody(self) -> None:
        answer = self.slow.check(said("nobody", b"x"))
        assert isinstance(answer, Deferred)
        self.assertEqual(len(self.late.waiting), 1)
        self.late.go_on()
        self.failureResultOf(answer, Refused)

    def test_there_is_an_end_to_waiting(self) -> None:
        answers = [self.slow.check(said("alice", b"%d" % number)) for number in range(MOST_WAITING)]
        self.assertRaises(Busy, self.slow.check, said("alice", b"wonder"))
        self.late.go_on()
        for answer in answers:
            assert isinstance(answer, Deferred)
            self.failureResultOf(answer, Refused)
        last = self.slow.check(said("alice", b"wonder"))
        assert isinstance(last, Deferred)
        self.late.go_on()
        self.assertEqual(self.successResultOf(last), User("alice"))

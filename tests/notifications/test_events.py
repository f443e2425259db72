"""Events in the form that registry:2 gives them."""

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.notifications.events import Actor, Event, Request, Source, Target, envelope, parse, record

DIGEST = "sha256:fea8895f450959fa676bcc1df0611ea93823a735a01205fd8622846041d0c7cf"

#: The example of the documentation of registry:2, "Notifications", with the order and the indentation that it really has.
DOCUMENTED = """{
   "events": [
      {
         "id": "320678d8-ca14-430f-8bb6-4ca139cd83f7",
         "timestamp": "2016-03-09T14:44:26.402973972Z",
         "action": "pull",
         "target": {
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "size": 708,
            "digest": "sha256:fea8895f450959fa676bcc1df0611ea93823a735a01205fd8622846041d0c7cf",
            "length": 708,
            "repository": "hello-world",
            "url": "http://192.168.100.227:5000/v2/hello-world/manifests/sha256:fea8895f450959fa676bcc1df0611ea93823a735a01205fd8622846041d0c7cf",
            "tag": "latest"
         },
         "request": {
            "id": "6df24a34-0959-4923-81ca-14f09767db19",
            "addr": "192.168.64.11:42961",
            "host": "192.168.100.227:5000",
            "method": "GET",
            "useragent": "curl/7.38.0"
         },
         "actor": {},
         "source": {
            "addr": "xtal.local:5000",
            "instanceID": "a53db899-3b4b-4a62-a067-8dd013beaca4"
         }
      }
   ]
}"""


def event(target: Target, when: float = 1457534666.402973) -> Event:
    request = Request("6df24a34-0959-4923-81ca-14f09767db19", "192.168.64.11:42961", "192.168.100.227:5000", "GET", "curl/7.38.0")
    source = Source("xtal.local:5000", "a53db899-3b4b-4a62-a067-8dd013beaca4")
    return Event("320678d8-ca14-430f-8bb6-4ca139cd83f7", when, "pull", target, request, Actor(), source)


class EventsTest(SynchronousTestCase):
    maxDiff = None

    def test_documented(self) -> None:
        """The documented event, byte by byte but for the nanoseconds, which the clock here does not have."""
        url = f"http://192.168.100.227:5000/v2/hello-world/manifests/{DIGEST}"
        target = Target(
            "hello-world", "application/vnd.docker.distribution.manifest.v2+json", 708, DIGEST, url=url, tag="latest"
        )
        wanted = DOCUMENTED.replace(".402973972Z", ".402973Z")
        self.assertEqual(envelope(parse(record(event(target)))).decode(), wanted)

    def test_deleted(self) -> None:
        """Of what was deleted, little is said."""
        found = parse(record(event(Target("a/b", digest=DIGEST))))
        self.assertEqual(found["target"], {"digest": DIGEST, "repository": "a/b"})
        found = parse(record(event(Target("a/b", tag="v1"))))
        self.assertEqual(found["target"], {"repository": "a/b", "tag": "v1"})

    def test_mounted(self) -> None:
        found = parse(record(event(Target("a/b", "application/octet-stream", 5, DIGEST, from_repository="c"))))
        self.assertEqual(list(found["target"]), ["mediaType", "size", "digest", "length", "repository", "fromRepository"])

    def test_references(self) -> None:
        references = ({"mediaType": "x/y", "digest": DIGEST, "size": 1},)
        found = parse(record(event(Target("a", "x/z", 1, DIGEST, references=references))))
        self.assertEqual(found["target"]["references"], list(references))

    def test_timestamps(self) -> None:
        for when, wanted in ((0, "1970-01-01T00:00:00Z"), (1.5, "1970-01-01T00:00:01.5Z"), (0.9999999, "1970-01-01T00:00:01Z")):
            self.assertEqual(parse(record(event(Target("a"), when)))["timestamp"], wanted)

    @given(st.text(), st.text())
    def test_one_line(self, agent: str, host: str) -> None:
        """Whatever a client says of itself, a record is one line and says the same."""
        request = Request("id", "", host, "GET", agent)
        line = record(Event("e", 0, "push", Target("a"), request, Actor(), Source("", "")))
        self.assertNotIn(b"\n", line)
        self.assertEqual(parse(line)["request"]["useragent"], agent)

    @given(st.binary() | st.recursive(st.none() | st.text(), st.lists).map(lambda value: json.dumps(value).encode()))
    def test_no_event(self, line: bytes) -> None:
        with self.assertRaises(ValueError):
            parse(line)

    def test_nested(self) -> None:
        with self.assertRaises(ValueError):
            parse(b"[" * 100_000)

"""
A minute of clients that push, pull, mount and delete while garbage is collected back to back: no pull fails, no push ends in anything but
success or an error after which it can be tried again, and at the end everything is whole and nothing is left over.
"""

from benchmarks.soak import soak
from tests.e2e.case import E2ETestCase
from tests.e2e.process import need

#: For each grace period, in seconds.
SECONDS = 28


class SoakTest(E2ETestCase):
    def soak(self, grace: float) -> None:
        """
        :param grace: The grace period, in seconds.
        """
        need("skopeo")
        found = soak(self.directory / f"grace-{grace}", grace, SECONDS)
        said = "\n".join(found.lines())
        self.assertEqual(len(found.failures), 0, said)
        # It has to have been a soak.
        for what in ("pushes", "pulls", "promises", "lists", "tags deleted", "manifests deleted", "blobs mounted", "pushes by skopeo"):
            self.assertGreater(found.counts[what], 0, f"no {what}\n{said}")
        self.assertGreater(found.collections.counts["commands"], 0, said)
        self.assertGreater(found.collections.counts["blobs swept"], 10, said)

    def test_without_grace(self) -> None:
        self.soak(0.0)

    def test_with_a_grace_of_a_second(self) -> None:
        self.soak(1.0)

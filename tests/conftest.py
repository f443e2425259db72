"""
What every test run shares: the hypothesis profiles, and the rule that nothing
skips in CI.
"""

import os
import signal
import tempfile
from collections.abc import Generator

import hypothesis
import pytest

from regd.storage.files import in_memory

# Debian 13 has /tmp in memory, where a flush is nothing, and regd knows that. What is tested about flushes that are slow, or fail, needs
# a disk; /var/tmp is one wherever there is one (Filesystem Hierarchy Standard 3.0, section 5.15).
if in_memory(tempfile.gettempdir()):
    os.environ["TMPDIR"] = tempfile.tempdir = "/var/tmp"

# A shell gives what it runs in the background no SIGINT, and the daemons that are tested would not have it either.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")

# Tests that may skip in CI, by node id prefix, each with its reason.
MAY_SKIP_IN_CI: dict[str, str] = {}

# A shared machine is slow at times: a deadline for each example would only
# make tests flicker. In CI the examples are the same in every run.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if IN_CI else "local")


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """
    Turn a skip into a failure in CI: what CI skips, nobody tests.

    :param report: The report of a test's phase or of a module's collection.
    """
    if not IN_CI or report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    if any(report.nodeid.startswith(prefix) for prefix in MAY_SKIP_IN_CI):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid} skips, and in CI nothing may: {reason}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """See to it that no test skips in CI."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """See to it that no module skips in CI."""
    report = yield
    _refuse_skip(report)
    return report

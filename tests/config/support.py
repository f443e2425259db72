"""What the tests of the configuration share: a file that exists, and the shortest one that regd starts with."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regd.config import Config, ConfigError, Loaded, load

#: The shortest configuration.
MINIMAL = "version: 0.1\nstorage: inmemory\n"


class ConfigCase(SynchronousTestCase):
    """A test case that reads configurations from a file of its own."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def file(self, text: str | bytes) -> str:
        """
        :param text: What the file holds; it takes the place of the one before.
        :return: Its path.
        """
        path = self.directory / "config.yml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    def load(self, text: str | bytes, **environ: str) -> Loaded:
        """
        :param text: The file.
        :param environ: The environment variables.
        """
        return load(self.file(text), environ)

    def config(self, text: str = "", **environ: str) -> Config:
        """
        :param text: What stands in the file besides the shortest configuration.
        """
        return self.load(MINIMAL + text, **environ).config

    def warnings(self, text: str = "", **environ: str) -> tuple[str, ...]:
        """
        :param text: As for :meth:`config`.
        """
        return self.load(MINIMAL + text, **environ).warnings

    def problem(self, text: str, **environ: str) -> str:
        """
        :param text: The whole file.
        :return: The one line that regd refuses to start with.
        """
        error = self.assertRaises(ConfigError, self.load, text, **environ)
        self.assertNotIn("\n", str(error))
        self.assertEqual(str(error), error.problems[0])
        return str(error)

    def refused(self, text: str, start: str, **environ: str) -> str:
        """
        :param text: As for :meth:`config`.
        :param start: What the one line starts with.
        """
        line = self.problem(MINIMAL + text, **environ)
        self.assertTrue(line.startswith(start), line)
        self.assertIn("allowed: ", line)
        return line

    def check_written_again(self, parse: Callable[[str], object], text: str) -> None:
        """
        :param parse: What it makes of ``text``, when written as text, has to be read as the same again.
        :param text: May be anything: then the :class:`ValueError` has to say something.
        """
        try:
            found = parse(text)
        except ValueError as error:
            self.assertTrue(str(error))
            return
        self.assertEqual(parse(str(found)), found)

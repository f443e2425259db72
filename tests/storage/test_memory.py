"""The storage in memory keeps the contract."""

from __future__ import annotations

import time

from twisted.trial.unittest import TestCase

from regd.storage.layout import Path
from regd.storage.memory import MemoryDriver
from tests.storage.contract import DriverContract


class MemoryDriverTest(DriverContract, TestCase):
    driver: MemoryDriver

    def setUp(self) -> None:
        self.long_ago = False
        self.driver = MemoryDriver(lambda: 1_000_000.0 if self.long_ago else time.time())
        self.driver.start()
        self.addCleanup(self.driver.stop)

    async def age(self, path: Path) -> float:
        content = await self.content(path)
        self.long_ago = True
        await self.driver.write((path, content))
        self.long_ago = False
        return 1_000_000.0

    def test_it_says_what_it_is(self) -> None:
        self.assertEqual((self.driver.name, self.driver.shared), ("inmemory", False))

    async def test_times_are_the_clock_s(self) -> None:
        now = 100.0
        driver = MemoryDriver(lambda: now)
        await driver.write((Path("f"), b""))
        now = 200.0
        self.assertEqual((await driver.stat(Path("f"))).modified, 100.0)
        appender = await driver.append(Path("f"))
        appender.write(b"x")
        await appender.flush()
        self.assertEqual((await driver.stat(Path("f"))).modified, 200.0)

    async def test_there_is_no_descriptor(self) -> None:
        await self.driver.write((Path("f"), b""))
        self.assertIsNone((await self.driver.open(Path("f"))).fileno())
        self.assertIsNone((await self.driver.follow(Path("f"))).fileno())

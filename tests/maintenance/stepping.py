"""
Several processes over one storage, one step at a time: a test says who does the next call to the storage, who fails at it and who dies.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from random import Random
from typing import Any, Generic, TypeVar

from regd.storage.driver import Driver

__all__ = ["Killed", "SteppingDriver", "Task", "alternate", "finish", "turn"]

T = TypeVar("T")

#: More steps than anything takes.
_MOST = 100_000

#: After how many steps another one may come between, and for how many.
_POINTS = range(1, 24)
_BURSTS = (1, 3, 10, 30, 60, 100, 200, 1000)

#: What a driver has that is no call to the storage.
_PLAIN = frozenset({"start", "stop"})


class Killed(BaseException):
    """What a process meets that has been killed: nothing that it still does reaches the storage."""


class _Turn:
    def __await__(self) -> Generator[None, None, None]:
        yield


async def turn(seconds: float = 0) -> None:
    """Let somebody else do something first; takes no time."""
    del seconds
    await _Turn()


class SteppingDriver:
    """
    What one process has for a driver: before each call to the storage others have their turn.

    :param driver: that of all processes.
    :ivar calls: how many calls there were.
    :ivar before: called with the number of each call, counted from 1; what it raises is what the call raises.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._held: list[Any] = []
        self._dead = False
        self.calls = 0
        self.before: Callable[[int], object] = lambda number: None

    # Any: it answers for whatever the driver has.
    def __getattr__(self, name: str) -> Any:
        found = getattr(self._driver, name)
        if not callable(found) or name in _PLAIN:
            return found

        async def stepped(*args: Any, **kwargs: Any) -> Any:
            if not self._dead:
                await _Turn()
            if self._dead:
                raise Killed
            self.calls += 1
            self.before(self.calls)
            result = await found(*args, **kwargs)
            if name == "lock":
                self._held.append(result)
            return result

        return stepped

    def kill(self) -> None:
        """Let the process die: no call of it comes through any more, and the kernel lets go of its locks."""
        self._dead = True
        for held in self._held:
            held.close()


class Task(Generic[T]):
    """
    A coroutine that is run by hand.

    :ivar done: whether it has ended.
    :ivar error: what it raised, if anything.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self._result: T | None = None
        self.done = False
        self.error: BaseException | None = None

    def step(self) -> None:
        """Go on to the next turn."""
        try:
            self._coroutine.send(None)
        except StopIteration as end:
            self.done, self._result = True, end.value
        # Whatever it is, it belongs to whoever asks for the result.
        except BaseException as error:  # noqa: BLE001
            self.done, self.error = True, error

    def result(self) -> Any:
        """
        :return: What the coroutine returned.
        """
        assert self.done
        if self.error is not None:
            raise self.error
        return self._result

    def kill(self) -> None:
        """End it where it is. Its driver has to be killed first, so that what it does about its end reaches nothing."""
        raised: BaseException | None = Killed()
        for _ in range(1000):
            if self.done:
                return
            try:
                if raised is None:
                    self._coroutine.send(None)
                else:
                    self._coroutine.throw(raised)
            except (Killed, StopIteration):
                self.done, self.error = True, Killed()
            raised = None
        raise AssertionError("it goes on after it has been killed")


def finish(task: Task[Any]) -> None:
    """Step a task to its end."""
    for _ in range(_MOST):
        if task.done:
            return
        task.step()
    raise AssertionError("it does not come to an end")


def alternate(task: Task[Any], other: Callable[[], Task[Any] | None], choose: Random) -> None:
    """
    Step a task to its end, and let another one come between: once or twice, for a few steps or many, which is how two that get in each
    other's way are found soonest; and then for one step out of a few, so that neither waits for the other for ever.

    :param other: The other one, asked when its turn comes; ``None`` for nobody.
    :param choose: Who is next.
    """
    turns = {choose.choice(_POINTS) * choose.randint(0, 2): choose.choice(_BURSTS) for _ in range(choose.randint(0, 2))}
    for number in range(_MOST):
        if task.done:
            return
        burst = turns.get(number, int(number > _POINTS[-1] and number % 4 == 0))
        beside = other() if burst else None
        for _ in range(burst):
            if beside is not None and not beside.done:
                beside.step()
        task.step()
    raise AssertionError("it does not come to an end")

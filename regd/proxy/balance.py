"""Which of several upstreams is asked, and whether they are well."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError  # noqa: A004 - it is not Python's, and the one that is raised
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from regd.config import HealthCheck
from regd.proxy.connection import Lost, UpstreamConnection
from regd.proxy.dialing import CannotConnect
from regd.proxy.upstream import UpstreamServer
from regd.web.body import BodyAborted

__all__ = ["Balancer"]

#: How long an upstream may take to answer a health check, in seconds, once it is connected.
_PATIENCE = 10.0


class Balancer:
    """
    The upstreams of one route.

    :param check: ``None`` for no checks.
    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    """

    _log = Logger()

    def __init__(self, servers: Sequence[UpstreamServer], check: HealthCheck | None, reactor: Any) -> None:
        self.servers = tuple(servers)
        self._check = check
        self._reactor = reactor
        self._turn = 0
        self._failures = dict.fromkeys(self.servers, 0)
        self._calls: dict[UpstreamServer, IDelayedCall] = {}
        self._begun = self._closed = False

    def choose(self, tried: Collection[UpstreamServer]) -> UpstreamServer | None:
        """
        The upstream with the fewest requests; those that have as few take turns. One that has just failed is chosen only where there is no
        other, the one that failed first.

        :param tried: not these.
        :returns: ``None`` when there is none left, or none is healthy.
        """
        if not self._begun:
            self._begin()
        count = len(self.servers)
        if count == 1:
            # As nearly everywhere.
            only = self.servers[0]
            return only if only.healthy and only not in tried else None
        best: UpstreamServer | None = None
        key = (0.0, 0)
        self._turn = (self._turn + 1) % count
        for number in range(count):
            server = self.servers[(self._turn + number) % count]
            if not server.healthy or server in tried:
                continue
            mine = (server.penalized, server.busy)
            if best is None or mine < key:
                best, key = server, mine
        return best

    def close(self) -> None:
        """Check no more, and let connections end."""
        self._closed = True
        for call in self._calls.values():
            call.cancel()
        self._calls.clear()
        for server in self.servers:
            server.close()

    def _begin(self) -> None:
        """A process that serves nobody has no need to know."""
        self._begun = True
        if self._check is not None and not self._closed:
            for server in self.servers:
                self._ask(server, self._check)

    def _ask(self, server: UpstreamServer, check: HealthCheck) -> None:
        self._calls.pop(server, None)

        def again(problem: str) -> None:
            if self._closed:
                return
            self._note(server, check, problem)
            self._calls[server] = self._reactor.callLater(check.interval, self._ask, server, check)

        Deferred.fromCoroutine(self._probe(server, check)).addCallback(again)

    async def _probe(self, server: UpstreamServer, check: HealthCheck) -> str:
        """
        :returns: what is wrong, or nothing.
        """
        connection: UpstreamConnection | None = None
        try:
            connection = server.at_hand() or await server.connect()
            head = b"GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: regd\r\nAccept: */*\r\n\r\n" % (check.path.encode(), server.authority)
            answer = await connection.ask(b"GET", head, None).addTimeout(_PATIENCE, self._reactor)
            if answer.head.status >= 500:
                return f"it answers {answer.head.status}"
            if answer.body.take_whole() is None:
                # How it goes on is of no interest.
                connection.abort()
        except (CannotConnect, Lost, BodyAborted) as error:
            return str(error)
        except TimeoutError:
            return f"it did not answer within {_PATIENCE:g} s"
        except Exception:  # noqa: BLE001 - a fault of regd's own must not end the checks
            self._log.failure("a health check failed")
            return "a fault of regd's own"
        finally:
            if connection is not None and not connection.ended:
                connection.abort()
        return ""

    def _note(self, server: UpstreamServer, check: HealthCheck, problem: str) -> None:
        upstream = str(server.upstream)
        if not problem:
            self._failures[server] = 0
            if not server.healthy:
                server.healthy = True
                server.succeeded()
                self._log.info("upstream {upstream} is healthy again", upstream=upstream)
            return
        self._failures[server] += 1
        if server.healthy and self._failures[server] >= check.threshold:
            server.healthy = False
            self._log.warn(
                "upstream {upstream} gets no requests: {path} failed {count} times, the last time because {problem}",
                upstream=upstream,
                path=check.path,
                count=self._failures[server],
                problem=problem,
            )

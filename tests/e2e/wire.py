"""A connection whose bytes a test sends when, and as far as, it likes."""

import contextlib
import http.client
import socket
import struct
import threading
from collections.abc import Mapping
from urllib.parse import urlsplit

from tests.e2e.rawhttp import Answer

__all__ = ["Wire"]


class Wire:
    """
    One connection to 127.0.0.1.

    :param port: Where to.
    :param receive_buffer: How many bytes the kernel is to hold that have not been read, or ``None`` for as many as it likes.
    """

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        self._port = port
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(60)
        self.socket.connect(("127.0.0.1", port))

    def head(self, method: str, target: str, fields: Mapping[str, object] | None = None) -> None:
        """
        Send the head of a request.

        :param method: The method.
        :param target: A path with its query, or an absolute URL.
        :param fields: Header fields besides ``Host``.
        """
        parts = urlsplit(target)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self._port}"]
        lines += [f"{name}: {value}" for name, value in (fields or {}).items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))

    def chunk(self, data: bytes) -> None:
        """
        :param data: Sent as one chunk (RFC 9112, section 7.1); none for the end of the body.
        """
        self.socket.sendall(b"%x\r\n%b\r\n" % (len(data), data))

    def answer(self, method: str = "GET") -> Answer:
        """
        :param method: What was asked, which says whether a body comes.
        :return: The next answer, whole.
        """
        response = http.client.HTTPResponse(self.socket, method=method)
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())

    def answer_while_sending(self, method: str, target: str, body: bytes, fields: Mapping[str, object] | None = None) -> Answer:
        """
        Send a request as a program does that looks at the answer while it sends: what is refused it does not send to the end.

        :param method: The method.
        :param target: Where to.
        :param body: The body.
        :param fields: Header fields besides ``Host`` and ``Content-Length``.
        :return: The answer.
        """
        self.head(method, target, {"Content-Length": len(body), **(fields or {})})

        def send() -> None:
            # The server may have heard enough.
            with contextlib.suppress(OSError):
                self.socket.sendall(body)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            return self.answer(method)
        finally:
            self.close()
            sender.join()

    def close(self) -> None:
        """End it in the orderly way: FIN."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def reset(self) -> None:
        """End it as a machine does that has been switched off and on: RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

"""Large bodies to push: many of them, all different, from one file in memory, and none of them hashed or framed while the clock runs."""

from __future__ import annotations

import hashlib
import os
from typing import Final

__all__ = ["CHUNK", "TAIL", "Payload"]

#: The length of what makes each blob its own, in bytes.
TAIL: Final = 32

#: What Go's HTTP client, and so docker, puts into one chunk of a chunked body, in bytes.
CHUNK: Final = 32 * 1024

_BLOCK: Final = 1024 * 1024


class Payload:
    """
    The part that all blobs of a run have in common: all but the last :data:`TAIL` bytes. Client processes inherit the files.

    :param blob_size: the size of a whole blob, in bytes.
    :ivar fd: a file with the common part as it is, ``size`` bytes.
    :ivar chunked_fd: one with it in the chunked coding, in chunks of :data:`CHUNK` bytes without an end, ``chunked_size`` bytes. The
        files are in memory, so that a client sends either with a few calls and no copy.
    """

    def __init__(self, blob_size: int) -> None:
        self.blob_size = blob_size
        self.size = blob_size - TAIL
        self.fd = os.memfd_create("payload")
        self.chunked_fd = os.memfd_create("payload-chunked")
        self.chunked_size = 0
        self._hash = hashlib.sha256()
        block = os.urandom(min(_BLOCK, self.size))
        left = self.size
        while left:
            piece = block[:left]
            os.write(self.fd, piece)
            chunks = (piece[offset : offset + CHUNK] for offset in range(0, len(piece), CHUNK))
            self.chunked_size += os.write(self.chunked_fd, b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks))
            self._hash.update(piece)
            left -= len(piece)

    def blob(self, *identity: object) -> tuple[bytes, str]:
        """
        :param identity: what tells this blob from the others of the run.
        :return: its last bytes, and its digest.
        """
        tail = hashlib.sha256(repr(identity).encode()).digest()
        whole = self._hash.copy()
        whole.update(tail)
        return tail, f"sha256:{whole.hexdigest()}"

    def close(self) -> None:
        """Give the memory back."""
        os.close(self.fd)
        os.close(self.chunked_fd)

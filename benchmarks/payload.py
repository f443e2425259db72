"""Large bodies to push: many of them, all different, from one file in memory, and none of them hashed while the clock runs."""

from __future__ import annotations

import hashlib
import os
from typing import Final

__all__ = ["TAIL", "Payload"]

#: The length of what makes each blob its own, in bytes.
TAIL: Final = 32

_BLOCK: Final = 1024 * 1024


class Payload:
    """
    The part that all blobs of a run have in common: all but the last :data:`TAIL` bytes. Client processes inherit the file.

    :param blob_size: the size of a whole blob, in bytes.
    """

    def __init__(self, blob_size: int) -> None:
        self.blob_size = blob_size
        self.size = blob_size - TAIL
        self.fd = os.memfd_create("payload")
        self._hash = hashlib.sha256()
        block = os.urandom(min(_BLOCK, self.size))
        left = self.size
        while left:
            piece = block[:left]
            os.write(self.fd, piece)
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

"""What an attempt printed and what ended it, within bounds, and so that it can be kept."""

from collections import deque

OUTPUT_BYTES_MAX = 64 * 1024
ERROR_CHARS_MAX = 2000


class BoundedOutput:
    """Keeps the first and the last half of `bytes_max`; a flood costs no more memory than that."""

    __slots__ = ("_half", "_head", "_seen", "_tail", "_tail_bytes")

    def __init__(self, bytes_max: int = OUTPUT_BYTES_MAX) -> None:
        self._half = max(1, bytes_max // 2)
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._seen = 0

    def write(self, piece: bytes) -> None:
        """Take what was printed next."""
        self._seen += len(piece)
        room = self._half - len(self._head)
        if room > 0:
            self._head += piece[:room]
            piece = piece[room:]
        if not piece:
            return
        if len(piece) >= self._half:
            self._tail.clear()
            self._tail.append(piece[-self._half :])
            self._tail_bytes = self._half
            return
        self._tail.append(piece)
        self._tail_bytes += len(piece)
        # Many small prints make a deque of objects dearer than their bytes: join now and then.
        if self._tail_bytes > 2 * self._half or len(self._tail) > 1024:  # noqa: PLR2004 - pieces
            joined = b"".join(self._tail)[-self._half :]
            self._tail.clear()
            self._tail.append(joined)
            self._tail_bytes = len(joined)

    def parts(self) -> tuple[bytes, bytes, int]:
        """Head, tail, and how many bytes were left out between them."""
        tail = b"".join(self._tail)[-self._half :]
        return bytes(self._head), tail, self._seen - len(self._head) - len(tail)

    def __len__(self) -> int:
        return self._seen


def plain(text: str, chars_max: int = ERROR_CHARS_MAX) -> str:
    """A task's own words as any frame and any text column holds them, within a bound.

    Half a surrogate pair has no UTF-8, and PostgreSQL keeps no zero byte in a text.
    """
    cut = text[:chars_max].encode(errors="replace").decode().replace("\0", "?")
    return cut if len(text) <= chars_max else cut + " ..."

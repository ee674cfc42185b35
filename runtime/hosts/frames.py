"""Length-prefixed frames over a stream socket: whole ones come out, oversized ones are refused."""

import struct

HEADER = struct.Struct(">I")
FRAME_BYTES_MAX = 64 * 1024 * 1024
"""More than any honest peer sends; a larger length means the stream is not ours any more."""


class FrameError(Exception):
    """The peer sent what is not a frame; its connection cannot be used any further."""


def frame(body: bytes) -> bytes:
    """One frame around `body`.

    Raises:
        FrameError: `body` is larger than `FRAME_BYTES_MAX`.
    """
    if len(body) > FRAME_BYTES_MAX:
        raise FrameError(f"a frame of {len(body)} bytes is over {FRAME_BYTES_MAX}")
    return HEADER.pack(len(body)) + body


class FrameBuffer:
    """Puts a stream's pieces together again."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, piece: bytes) -> list[bytes]:
        """The bodies of the frames that `piece` completes, in order.

        Raises:
            FrameError: a length is over `FRAME_BYTES_MAX`.
        """
        data = self._data
        data += piece
        bodies = []
        at = 0
        while len(data) - at >= HEADER.size:
            (size,) = HEADER.unpack_from(data, at)
            if size > FRAME_BYTES_MAX:
                raise FrameError(f"a frame of {size} bytes is over {FRAME_BYTES_MAX}")
            end = at + HEADER.size + size
            if len(data) < end:
                break
            bodies.append(bytes(memoryview(data)[at + HEADER.size : end]))
            at = end
        if at:
            del data[:at]
        return bodies

"""The API's address: bound before anything is started, listened on when it can be answered."""

import socket

from protocols.errors import TickwrightError


class PortInUseError(TickwrightError):
    """The API's address cannot be had."""

    code = "port_in_use"
    status = 503


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to that address, with port 0 to any free port.

    Raises:
        PortInUseError: It cannot be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _refused(f"{host}:{port}", error) from error
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise _refused(f"{host}:{port}", error) from error
    return listening


def listen(listening: socket.socket) -> None:
    """Listen: of two that start at once both can bind a port, and only one can listen on it.

    Raises:
        PortInUseError: The other does.
    """
    try:
        listening.listen()
    except OSError as error:
        raise _refused(url_of(listening), error) from error


def url_of(listening: socket.socket) -> str:
    """How a bound socket is reached."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _refused(address: str, error: OSError) -> PortInUseError:
    return PortInUseError(
        f"the API cannot listen on {address}: {error.strerror}; "
        "stop what does, or choose another with --port"
    )

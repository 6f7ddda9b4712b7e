"""The class that gunicorn runs: its threaded worker, that no slow client can hold.

gunicorn's own waits for the rest of a request as long as its client likes, so that as many clients
as it has threads stop it by sending one byte; and it waits for each client to close, up to two
seconds, in the one loop that accepts all the others.
"""

import contextlib
import socket
import time
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

READ_TIMEOUT = 10.0  # seconds from when a thread waits for a request to the request's last byte
ANSWER_TIMEOUT = 60.0  # seconds until the answer must have been taken too
LINGER = 2.0  # seconds in which a client reads its answer and closes


class WebWorker(ThreadWorker):  # type: ignore[misc]  # untyped
    """gunicorn's threaded worker, with an end to every request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._begun: dict[TConn, float] = {}  # of the requests that threads are at

    def handle(self, conn: TConn) -> Any:
        """Runs in a thread, from the wait for a request to the end of its answer."""
        self._begun[conn] = time.monotonic()
        try:
            keep = super().handle(conn)
            if not keep:
                _linger(conn.sock)  # here; gunicorn then finds nothing left to wait for
            return keep
        finally:
            del self._begun[conn]

    def murder_pending(self) -> None:
        """Runs every second, in the main thread."""
        super().murder_pending()
        now = time.monotonic()
        for conn, begun in list(self._begun.items()):
            if now - begun > READ_TIMEOUT:
                # For whoever reads it is as if the client had gone; what is written still arrives.
                _shut(conn.sock, socket.SHUT_RD)
            if now - begun > ANSWER_TIMEOUT:
                _shut(conn.sock, socket.SHUT_RDWR)


def _linger(client: socket.socket) -> None:
    """Let a client that still sends read its answer: an end at once would destroy that."""
    _shut(client, socket.SHUT_WR)
    deadline = time.monotonic() + LINGER
    with contextlib.suppress(OSError):
        client.settimeout(LINGER)
        while time.monotonic() < deadline and client.recv(65_536):
            pass
    _shut(client, socket.SHUT_RD)


def _shut(client: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):  # it has gone meanwhile
        client.shutdown(how)

"""The gunicorn worker class: its threaded worker, with time limits for slow clients.

gunicorn's own threaded worker waits for the rest of a request without a limit, so a client that
sends one byte and no more blocks a thread. It also waits up to two seconds for a client to close,
in the loop that accepts all other clients. And while it finishes its requests after SIGTERM, it
lets others connect, whom it never answers.
"""

import contextlib
import socket
import time
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

READ_TIMEOUT = 10.0  # seconds for a request to arrive, from when a thread waits for it
ANSWER_TIMEOUT = 60.0  # seconds for the response to be sent too, from the same moment
LINGER = 2.0  # seconds for the client to read the response and close


class WebWorker(ThreadWorker):  # type: ignore[misc]  # untyped
    """gunicorn's threaded worker, with a time limit for every request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._started: dict[TConn, float] = {}  # when a thread began to serve each connection

    def handle(self, conn: TConn) -> Any:
        """Wait for a request and answer it; gunicorn calls this in a thread."""
        self._started[conn] = time.monotonic()
        try:
            keep = super().handle(conn)
            if not keep:
                _linger(conn.sock)  # in this thread; the accepting loop then need not wait
            return keep
        finally:
            del self._started[conn]

    def set_accept_enabled(self, enabled: bool) -> None:
        """Accept connections or not; gunicorn calls it in its main thread, also before the end."""
        super().set_accept_enabled(enabled)
        if not self.alive:
            for listener in self.sockets:
                listener.close()  # a client that connects now is refused, and can go elsewhere

    def murder_pending(self) -> None:
        """End requests past their time limit; gunicorn calls it each second in its main thread."""
        super().murder_pending()
        now = time.monotonic()
        for conn, started in list(self._started.items()):
            if now - started > READ_TIMEOUT:
                # Readers see the end of the stream; a response being sent still arrives.
                _shut(conn.sock, socket.SHUT_RD)
            if now - started > ANSWER_TIMEOUT:
                _shut(conn.sock, socket.SHUT_RDWR)


def _linger(client: socket.socket) -> None:
    """Let a client that is still sending read its response: closing at once would discard it."""
    _shut(client, socket.SHUT_WR)
    deadline = time.monotonic() + LINGER
    with contextlib.suppress(OSError):
        client.settimeout(LINGER)
        while time.monotonic() < deadline and client.recv(65_536):
            pass
    _shut(client, socket.SHUT_RD)


def _shut(client: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):  # the client has closed already
        client.shutdown(how)

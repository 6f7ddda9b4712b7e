"""The gunicorn worker class: waitress, which reads a request before it takes a thread for it.

gunicorn's own threads each wait for one client, as slow as that may be. waitress reads from all
clients in one loop, and sends in it; gunicorn runs the processes, renews them and ends them.
"""

import contextlib
import logging
import math
import os
import socket
import time
from collections.abc import Iterable
from typing import Any

from gunicorn.workers.base import Worker
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer, create_server

LARGEST_HEAD = 16 * 1024  # bytes
LARGEST_BODY = 2 * 1024 * 1024  # bytes; the application has lower limits of its own
IN_MEMORY = 64 * 1024  # bytes of a body; the rest of it waits in a temporary file
OUT_MEMORY = 1024 * 1024  # bytes of a response; a thread that makes more of it waits
READ_TIMEOUT = 10.0  # seconds for a request to arrive, or for the next one to begin
ANSWER_TIMEOUT = 60.0  # seconds for its response to be made and read
LINGER = 2.0  # seconds for what is on its way: an answer to a client, a request at the end


class WebWorker(Worker):  # type: ignore[misc]  # untyped
    """A process that serves the application by waitress."""

    alive: bool  # set by gunicorn; False ends the process

    def run(self) -> None:
        """Serve until SIGTERM, or the most requests of one process; then finish what has begun."""
        # A line for every request beyond the threads is no news to anybody.
        logging.getLogger('waitress.queue').setLevel(logging.ERROR)
        self._sockets: dict[int, Any] = {}  # of waitress: listeners, clients, and its own wake-up
        self._next_look = 0.0
        self._idle_until = math.inf  # when clients without a request are closed
        create_server(
            self._count_and_answer,
            map=self._sockets,
            sockets=[listener.sock for listener in self.sockets],
            threads=self.cfg.threads,
            connection_limit=self.cfg.worker_connections,
            max_request_header_size=LARGEST_HEAD,
            max_request_body_size=LARGEST_BODY,
            inbuf_overflow=IN_MEMORY,
            outbuf_high_watermark=OUT_MEMORY,
            channel_timeout=ANSWER_TIMEOUT + READ_TIMEOUT,  # end_if_late is earlier
            clear_untrusted_proxy_headers=False,  # as gunicorn: they are the application's affair
            log_socket_errors=False,  # a client that is gone is no error
            ident=None,
        )
        listeners = [each for each in self._sockets.values() if isinstance(each, BaseWSGIServer)]
        for listener in listeners:
            listener.channel_class = _Client
        while self.alive and self.ppid == os.getppid():
            self._turn()
        for listener in listeners:
            # A client that connects now is refused, and can go elsewhere. Not its own close, which
            # takes the wake-up from the threads that still answer.
            wasyncore.dispatcher.close(listener)
        now = time.monotonic()
        self._idle_until = now + LINGER
        while self._clients() and time.monotonic() < now + self.cfg.graceful_timeout:
            self._turn()

    def _turn(self) -> None:
        """Read and write what clients are ready for, for a second at most."""
        self.notify()
        wasyncore.loop(timeout=1.0, use_poll=True, map=self._sockets, count=1)
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + 1.0
            for client in self._clients():
                client.end_if_late(now, self._idle_until)

    def _clients(self) -> 'list[_Client]':
        return [each for each in list(self._sockets.values()) if isinstance(each, _Client)]

    def _count_and_answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info('This process has answered %d requests: another replaces it.', self.nr)
            self.alive = False
        answer: Iterable[bytes] = self.wsgi(environ, start_response)
        return answer


class _Client(HTTPChannel):  # type: ignore[misc]  # untyped
    """A connection, with a time limit for each request and its response."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.since = time.monotonic()  # when it began what it does
        self.is_refused = False  # its request is answered before all of it has been read
        self.is_answered = False  # and that answer is sent
        super().__init__(*args, **kwargs)

    def received(self, data: bytes) -> bool:
        """Take bytes of a request; waitress calls it in its loop."""
        if self.is_answered:
            return False
        before = self.request
        taken: bool = super().received(data)
        if self.request is not before:  # one begins here, or is complete
            self.since = time.monotonic()
        return taken

    def service(self) -> None:
        """Answer a request; waitress calls it in a thread."""
        self.since = time.monotonic()
        if not self.server.accepting:  # this process ends: the next request is another's
            self.requests[0].headers['CONNECTION'] = 'close'
        self.is_refused = self.requests[0].error is not None
        super().service()
        self.since = time.monotonic()

    # Closing while a client still sends would discard the answer that it has not read: that is
    # sent, then what comes is read and forgotten until the client closes, or for LINGER.

    def handle_write(self) -> None:
        """Send what there is; waitress calls it in its loop."""
        if self.will_close or not self.is_refused:
            super().handle_write()
            return
        if self.requests:  # a thread has not ended its answer yet
            return
        self._flush_exception(self._flush_some)
        if not self.total_outbufs_len:
            self.close_when_flushed = False
            self.is_answered = True
            self.since = time.monotonic()
            with contextlib.suppress(OSError):  # the client has closed already
                self.socket.shutdown(socket.SHUT_WR)

    def readable(self) -> bool:
        return bool(self.is_answered or super().readable())

    def end_if_late(self, now: float, idle_until: float) -> None:
        """Close a connection that is too slow, or now idle; waitress's loop does it."""
        is_served = self.requests or self.total_outbufs_len
        limit = ANSWER_TIMEOUT if is_served else READ_TIMEOUT
        limit = LINGER if self.is_answered else limit
        is_idle = not (is_served or self.request)
        if now - self.since > limit or (is_idle and now > idle_until):
            self.will_close = True

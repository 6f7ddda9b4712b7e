"""A TCP proxy that fails on demand: it cuts a connection after the server's answer, or hangs."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit


class Proxy:
    """Passes bytes between clients and one server until it is told to fail."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._listener = socket.create_server(('127.0.0.1', 0))
        self._sockets: list[socket.socket] = []
        self.cut_after: bytes | None = None  # cut instead of answering a command with this in it
        self.hang = False  # take everything, answer nothing
        self.hang_when: Callable[[], bool] | None = None  # hang from the first command after that
        self.cuts = 0
        self.requests = 0
        self.max_cuts = 1_000
        self.skip = 0  # commands with `cut_after` that it lets through first
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f'redis://127.0.0.1:{self._listener.getsockname()[1]}/0'

    def close(self) -> None:
        for end in (self._listener, *self._sockets):
            hang_up(end)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = connect_to(self._target)
                self._sockets += (client, server)
                doomed = threading.Event()
                for run in (self._send, self._answer):
                    threading.Thread(target=run, args=(client, server, doomed), daemon=True).start()

    def _send(self, client: socket.socket, server: socket.socket, doomed: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                self.requests += 1
                if self.hang_when and self.hang_when():
                    self.hang = True
                if self.cut_after and self.cut_after in data and self.cuts < self.max_cuts:
                    if self.skip:
                        self.skip -= 1
                    else:
                        doomed.set()
                if not self.hang:
                    server.sendall(data)
        hang_up(server)

    def _answer(
        self, client: socket.socket, server: socket.socket, doomed: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if doomed.is_set():  # the command has been executed; its sender never hears of it
                    self.cuts += 1
                    break
                client.sendall(data)
        hang_up(client)
        hang_up(server)


def connect_to(redis_url: str) -> socket.socket:
    """A connection to the server, be its URL unix:// or redis://."""
    url = urlsplit(redis_url)
    if url.scheme == 'unix':
        end = socket.socket(socket.AF_UNIX)
        end.connect(url.path)
        return end
    return socket.create_connection((url.hostname, url.port))


def hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextlib.contextmanager
def proxy_to(redis_url: str) -> Iterator[Proxy]:
    proxy = Proxy(redis_url)
    try:
        yield proxy
    finally:
        proxy.close()

"""A TCP link to a server that can be cut for its replicas only, as a partition does."""

import contextlib
import socket
import ssl
import threading

from qdjobs.server import HOST
from tests.support.proxy import hang_up


class Link:
    """Passes bytes to a server on loopback. Replicas reveal themselves by asking for its data."""

    def __init__(self, target: int, tls: ssl.SSLContext | None = None) -> None:
        """With `tls`, clients that begin a handshake are served by that; replicas are not."""
        self._target = target
        self._tls = tls
        self._listener = socket.create_server((HOST, 0))
        self._to_replicas: set[socket.socket] = set()
        self._is_cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def cut_from_replicas(self) -> None:
        """Lose silently what goes to replicas and comes from them, until `heal`."""
        self._is_cut = True

    def heal(self) -> None:
        self._is_cut = False
        for end in tuple(self._to_replicas):  # for bytes are missing in what it has passed
            hang_up(end)

    def close(self) -> None:
        hang_up(self._listener)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            client = self._without_tls(client)
            server = socket.create_connection((HOST, self._target))
        except OSError:
            hang_up(client)
            return
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=self._pass, args=(server, client), daemon=True).start()
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if b'REPLCONF' in data or b'PSYNC' in data:
                    self._to_replicas.add(client)
                if not self._loses(client):
                    server.sendall(data)
        self._to_replicas.discard(client)
        hang_up(client)
        hang_up(server)

    def _without_tls(self, client: socket.socket) -> socket.socket:
        if self._tls is not None and client.recv(1, socket.MSG_PEEK) == b'\x16':
            return self._tls.wrap_socket(client, server_side=True)
        return client

    def _pass(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if not self._loses(client):
                    client.sendall(data)
        if not self._loses(client):
            hang_up(client)
        hang_up(server)

    def _loses(self, client: socket.socket) -> bool:
        return self._is_cut and client in self._to_replicas

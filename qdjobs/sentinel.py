"""Connect to Redis by its URL, also to the primary that Sentinel names.

redis+sentinel://user:password@host1,host2:26380/service/0?sentinel_password=…

The user and password are those of Redis; the Sentinels' are options. With rediss+sentinel:// both
are reached over TLS. All other options are redis-py's.
"""

import os
from collections.abc import Mapping
from functools import lru_cache
from socket import socket
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry

OPTIONS = 'JOB_REDIS_OPTIONS'  # a variable: options for a URL that somebody else sets

_SCHEMES = {'redis+sentinel': 'redis', 'rediss+sentinel': 'rediss'}
_PORT = 26379
_LOOKUP_TIMEOUT = 0.45  # seconds, if all Sentinels hang: each has its part for each answer

# Without driver info protocol 2 needs no handshake, which takes several round trips. Not for TLS:
# there redis-py mistakes the server's first bytes for an unread answer.
NO_HANDSHAKE: Mapping[str, Any] = {'protocol': 2, 'driver_info': None}

Address = tuple[str, int]


class JobRedis(Redis):
    """A Redis client whose URL can name Sentinels: for RQ's commands, as RQ_CONNECTION_CLASS."""

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """Return a client. Options in the URL win. Raises ValueError."""
        url = add_options(url, os.environ.get(OPTIONS, ''))
        pool = ConnectionPool(**options | connection_options(url))
        return cls.from_pool(pool)  # type: ignore[return-value]  # which is of this class


def add_options(url: str, options: str) -> str:
    """Return a URL with more options in its query; those that it has win."""
    own = parse_qs(urlsplit(url).query, keep_blank_values=True)
    new = '&'.join(each for each in options.split('&') if each.partition('=')[0] not in own)
    return f'{url}{"&" if "?" in url else "?"}{new}' if new else url


def connection_options(url: str) -> dict[str, Any]:
    """Return what a pool needs for the connections that a URL describes. Raises ValueError."""
    scheme = url.partition('://')[0]
    if scheme in _SCHEMES:
        return _sentinel_options(url, _SCHEMES[scheme])
    if scheme != 'unix':
        _require_number(urlsplit(url).path.strip('/'), 'the host')
    return parse_url(url)  # type: ignore[no-any-return]


def _require_number(database: str, before: str) -> None:
    """Raise ValueError for what is no number: redis-py would use database 0."""
    if database and not (database.isascii() and database.isdecimal()):
        raise ValueError(f'{before} is followed by the number of a database')


def names_sentinels(url: str) -> bool:
    """Return whether the address of Redis has to be looked up at Sentinels."""
    return url.partition('://')[0] in _SCHEMES


def show_address(url: str) -> str:
    """Return the address in a URL, without user and password."""
    parts = urlsplit(url)
    if names_sentinels(url):
        service = parts.path.strip('/').partition('/')[0]
        return f'{service} of the Sentinels {parts.netloc.rpartition("@")[2]}'
    if parts.scheme == 'unix':
        return parts.path
    return f'{parts.hostname or "localhost"}:{parts.port or 6379}'  # as redis-py connects


def find_primary(url: str) -> Address:
    """Return the address that the Sentinels in a URL name. Raises redis' ConnectionError."""
    options = connection_options(url)
    service = _service(options['sentinels'], options['service'], options['sentinel_options'])
    return service.find_primary()


def _sentinel_options(url: str, scheme: str) -> dict[str, Any]:
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition('@')
    service, _, database = parts.path.strip('/').partition('/')
    if not service or not hosts or '@' in login:
        raise ValueError('it names no Sentinel, not the service that they watch, or several logins')
    _require_number(database, 'the service')
    options: dict[str, Any] = parse_url(f'{scheme}://{login}@/{database}?{parts.query}')
    own = {
        name: options.pop(f'sentinel_{name}')
        for name in ('username', 'password')
        if f'sentinel_{name}' in options
    }
    if scheme == 'rediss':
        own |= {name: value for name, value in options.items() if name.startswith('ssl_')}
        own['ssl'] = True
    return options | {
        'connection_class': SentinelSSLConnection if scheme == 'rediss' else SentinelConnection,
        'sentinels': tuple(_address(host) for host in hosts.split(',')),
        'service': service,
        'sentinel_options': tuple(sorted(own.items())),
    }


def _address(host: str) -> Address:
    parts = urlsplit(f'//{host}')
    if not parts.hostname or ' ' in host:
        raise ValueError('a host is missing, or has a space')
    return parts.hostname, parts.port or _PORT


class _Service:
    """A primary with its replicas, as its Sentinels know it. Shared by connections."""

    def __init__(
        self, sentinels: tuple[Address, ...], name: str, options: Mapping[str, Any]
    ) -> None:
        timeout = _LOOKUP_TIMEOUT / len(sentinels)
        defaults: dict[str, Any] = {
            'socket_connect_timeout': timeout,
            'socket_timeout': timeout,
            'retry': Retry(NoBackoff(), 0),
            **({} if 'ssl' in options else NO_HANDSHAKE),
        }
        self.primary: Address | None = None  # at the last look
        self._name = name
        self._sentinels = [
            (f'{host}:{port}', Redis(host, port, **defaults | dict(options)))
            for host, port in sentinels
        ]

    def find_primary(self) -> Address:
        """Return the address of the primary. Raises redis' ConnectionError."""
        problems = []
        for sentinel in self._sentinels:
            address, connection = sentinel
            try:
                state: Any = connection.sentinel_master(self._name)
            except RedisError as error:
                problems.append(f'{address}: {str(error).rstrip(".")}')
                continue
            if state['is_sdown'] or state['is_odown'] or not state['is_master']:
                problems.append(f'{address}: the primary is down, and there is no other yet')
                continue
            # The first to be looked at next time is one that answers.
            self._sentinels = [sentinel, *(each for each in self._sentinels if each != sentinel)]
            self.primary = state['ip'], state['port']
            return self.primary
        raise RedisConnectionError(
            f'no Sentinel names a primary of {self._name!r} ({"; ".join(problems)})'
        )


@lru_cache(maxsize=8)
def _service(
    sentinels: tuple[Address, ...], name: str, options: tuple[tuple[str, Any], ...]
) -> _Service:
    return _Service(sentinels, name, dict(options))


class SentinelConnection(Connection):
    """A connection to the server that is the primary when it connects.

    Not redis-py's, which works in its own pool only: RQ's worker pool makes others.
    """

    def __init__(
        self,
        *,
        sentinels: tuple[Address, ...],
        service: str,
        sentinel_options: tuple[tuple[str, Any], ...] = (),
        **options: Any,
    ) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._service = _service(sentinels, service, sentinel_options)

    @property
    def is_outdated(self) -> bool:
        """Whether another server is known to be the primary since this has connected."""
        return self._service.primary != (self.host, self.port)

    def _connect(self) -> socket:
        self.host, self.port = self._service.find_primary()
        return super()._connect()  # type: ignore[no-untyped-call, no-any-return]

    def on_connect_check_health(self, check_health: bool = True) -> None:
        super().on_connect_check_health(check_health=check_health)
        # A server that has just come back can be named still, and be a replica by now.
        self.send_command('ROLE', check_health=False)  # type: ignore[no-untyped-call]
        role = self.read_response(timeout=self.socket_connect_timeout)[0]
        if role not in (b'master', 'master'):
            raise RedisConnectionError(f'{self.host}:{self.port} is no longer the primary')


class SentinelSSLConnection(SentinelConnection, SSLConnection):
    """The same over TLS."""

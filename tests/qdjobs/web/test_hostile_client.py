"""A hostile client against the web process of the Procfile: refused, and nobody else notices."""

import contextlib
import json
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import pytest
from redis import Redis

from qdjobs.server import HOST, free_port, is_taken
from tests.support.pairs import every_pair
from tests.support.processes import ROOT, eventually, kill_group
from tests.support.random_requests import random_body

TOKEN = 's3cret'
NAMES = ('generate_complex_svg', 'send_email', 'data_processing', 'generate_report')
JSON = 'Content-Type: application/json'
BEARER = f'Authorization: Bearer {TOKEN}'
MEGABYTE = 1024 * 1024
PATIENCE = 120  # seconds, for a busy machine
SLOW_CLIENTS = 60  # of each kind: together more than the threads of the Procfile


class Server:
    """The web process, as its clients see it."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid

    def connect(self) -> socket.socket:
        return socket.create_connection((HOST, self.port), timeout=PATIENCE)

    def send(self, raw: bytes) -> bytes:
        """All that it answers to a request after which nothing comes."""
        with self.connect() as client:
            with contextlib.suppress(OSError):  # it may refuse before it has read it all
                client.sendall(raw)
                client.shutdown(socket.SHUT_WR)
            return read_all(client)

    def get(self, path: str) -> int:
        """The status of an answer that has PATIENCE to come."""
        connection = HTTPConnection(HOST, self.port, timeout=PATIENCE)
        connection.request('GET', path)
        status = connection.getresponse().status
        connection.close()
        return status

    def memory(self) -> float:
        """Megabytes that its processes hold."""
        pids = [self.pid, *map(int, children(self.pid))]
        pages = [int(Path(f'/proc/{pid}/statm').read_text().split()[1]) for pid in pids]
        return sum(pages) * os.sysconf('SC_PAGE_SIZE') / MEGABYTE


def children(pid: int) -> list[str]:
    return Path(f'/proc/{pid}/task/{pid}/children').read_text().split()


def read_all(client: socket.socket) -> bytes:
    """All that comes until the server closes, for which it has PATIENCE from the last byte."""
    answer = b''
    with contextlib.suppress(ConnectionError):
        while piece := client.recv(65_536):
            answer += piece
    return answer


def status_of(answer: bytes) -> int:
    match = re.match(rb'HTTP/1\.[01] (\d{3}) ', answer)
    assert match, answer[:200]
    return int(match[1])


@pytest.fixture(scope='module')
def server(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    log = tmp_path_factory.mktemp('web') / 'log'
    command = (ROOT / 'Procfile').read_text().splitlines()[0].removeprefix('web: ')
    environment = os.environ | {
        'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
        'PYTHONPATH': str(ROOT),
        'HOST': HOST,
        'PORT': str(port),
        'REDIS_URL': redis_url,
        'JOBS_API_TOKEN': TOKEN,
    }
    with log.open('w') as output:
        process = subprocess.Popen(
            ['bash', '-c', command],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        eventually(lambda: is_taken(port) and len(children(process.pid)) == 2)
        yield Server(port, process.pid)
        workers = children(process.pid)
        process.send_signal(signal.SIGTERM)
        process.wait(100)
    finally:
        kill_group(process.pid)
        process.wait()
    said = log.read_text()
    assert 'Traceback' not in said, said[-3000:]
    # No worker was killed and replaced behind our back.
    assert len(workers) == len(re.findall('Booting worker', said)) == 2, said[-3000:]


@pytest.fixture(autouse=True)
def nothing_is_queued(server: Server, connection: Redis) -> Iterator[None]:
    yield
    assert list(connection.scan_iter()) == []  # by name, should there be any
    assert server.get('/healthz') == 200


def request(method: str, path: str, *headers: str, body: bytes = b'') -> bytes:
    lines = [f'{method} {path} HTTP/1.1', 'Host: example.com', 'Connection: close', *headers]
    if body:
        lines.append(f'Content-Length: {len(body)}')
    return '\r\n'.join([*lines, '', '']).encode('latin-1') + body


GOOD = json.dumps({
    'task': 'generate_complex_svg',
    'params': {
        'width': 100, 'height': 100, 'pattern_type': 'grid', 'output_filename': 'hostile.svg',
    },
}).encode()  # fmt: skip


METHODS = ('GET', 'POST', 'PUT', 'DELETE', 'OPTIONS')
WRONG = [
    'X-Nothing: 1', 'Authorization:', 'Authorization: Bearer', 'Authorization: Bearer wrong',
    f'Authorization: Basic {TOKEN}', f'Authorization: Bearer {TOKEN}\x7f',
    f'Authorization: Bearer {TOKEN}, Bearer {TOKEN}', 'Authorization: Bearer \xff',
    f'Cookie: token={TOKEN}', f'X-Forwarded-Authorization: Bearer {TOKEN}',
    f'Authorization_: Bearer {TOKEN}', 'Authorization: ' + 'x' * 7000,
    f'Authorization: Bearer wrong\r\nAuthorization: Bearer {TOKEN}',
]  # fmt: skip
PATHS = ('/api/jobs', '/api/jobs/x', '/api/jobs/x/retry', '/api/jobs?limit=1')
STRANGERS = every_pair(WRONG, METHODS, PATHS)


@pytest.mark.parametrize('header', WRONG, ids=lambda header: header[:40])
def test_a_stranger_gets_nowhere(server: Server, header: str) -> None:
    requests = [(method, path) for wrong, method, path in STRANGERS if wrong == header]
    assert {method for method, _ in requests} == set(METHODS)
    for method, path in requests:
        answer = server.send(request(method, path, JSON, header, body=GOOD))
        assert status_of(answer) in (400, 401), (method, path)
        assert b'Traceback' not in answer, (method, path)


@pytest.mark.parametrize(
    'path',
    [
        '//api/jobs', '///api//jobs', '/api/jobs//', '/api/./jobs', '/api/jobs/..',
        '/api/jobs/../..',
        '/x/../api/jobs', '/%2e%2e/api/jobs', '/api/%2e%2e/api/jobs', '/api%2fjobs', '/api/jobs%2f',
        '/api/jobs%00', '/api/jobs/%00', '/api/jobs/%ff', '/api/jobs/%ed%a0%80', '/API/JOBS',
        '/api/jobs;x=1', '/api/jobs/x;/retry', '/api/jobs/..%2f..%2fetc%2fpasswd',
        '/api/jobs/%0d%0aX:1',
        '/api/jobs\\', 'http://example.com/api/jobs', 'http://user@evil.example/api/jobs',
        '/static/../api/jobs', '/static/%2e%2e/app.py', '/api/jobs/' + 'x' * 4000,
        '/api/jobs/' + 'x' * 100_000, '/' * 4000 + 'api', '/api/jobs?' + 'a=1&' * 900, 'api/jobs',
        '//evil.example/api/jobs', '/api/jobs?cursor=%ff', '/api/jobs/\xff', '/api/jobs/{{7*7}}',
    ],
    ids=lambda path: path[:40],
)  # fmt: skip
def test_no_path_leads_around_the_token(server: Server, path: str) -> None:
    none, wrong = 'X-Nothing: 1', 'Authorization: Bearer wrong'
    for method, header in (('GET', none), ('POST', none), ('POST', wrong), ('DELETE', wrong)):
        answer = server.send(request(method, path, JSON, header, body=GOOD))
        status = status_of(answer)
        assert 400 <= status < 500 or status == 308, answer[:300]
        if status == 308:  # to the same page, its slashes put right
            assert re.search(rb'\r\nLocation: http://(example\.com|evil\.example)?/', answer)
        assert b'root:' not in answer
        assert b'job_id' not in answer


@pytest.mark.parametrize(
    'kind', ['text/plain', 'application/x-www-form-urlencoded', 'application/json']
)
@pytest.mark.parametrize('path', ['/api/jobs', '/api/artboard/create'])
def test_another_site_posts_and_reads_nothing(server: Server, path: str, kind: str) -> None:
    headers = (
        'Origin: https://evil.example',
        'Sec-Fetch-Site: cross-site',
        f'Content-Type: {kind}',
    )
    for method in ('POST', 'GET', 'OPTIONS'):
        answer = server.send(request(method, path, *headers, body=b'{"pattern": "none"}'))
        assert b'access-control' not in answer.lower()
        if method == 'POST':
            assert status_of(answer) in (400, 401, 415)


BROKEN = [
    b'\x00' * 500, b'\x16\x03\x01' + b'x' * 300, b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    b'GET\r\n\r\n',
    b'POST /api/jobs HTTP/1.1\r\nContent-Length: -1\r\n\r\n',
    b'POST /api/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!',
    b'POST /api/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n'
    b'Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    b'POST /api/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n',
    b'POST /api/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n',
    b'GET / HTTP/1.1\r\n' + b'X: y\r\n' * 5000 + b'\r\n',
    b'GET / HTTP/1.1\r\nX: ' + b'y' * 50_000 + b'\r\n\r\n',
]  # fmt: skip


@pytest.mark.parametrize('raw', BROKEN, ids=lambda raw: str(raw)[:40])
def test_what_is_no_http_is_refused(server: Server, raw: bytes) -> None:
    answer = server.send(raw)
    assert answer == b'' or 400 <= status_of(answer) < 500 or status_of(answer) in (501, 505)


@pytest.mark.parametrize('path', ['/api/jobs', '/api/artboard/create'])
@pytest.mark.parametrize(
    ('length', 'body'),
    [
        ('Content-Length: 500', b'{"a":'), ('Transfer-Encoding: chunked', b'5\r\n{"a":'),
        ('Transfer-Encoding: chunked', b'5'), ('Transfer-Encoding: chunked', b''),
        ('Transfer-Encoding: chunked', b'zz\r\n'), ('Transfer-Encoding: chunked', b'1\r\n{xx'),
        ('Transfer-Encoding: chunked', b'-1\r\n'), ('Transfer-Encoding: chunked', b'1' * 9000),
        ('Transfer-Encoding: chunked', b'0\r\nX' * 999),
    ],
)  # fmt: skip
def test_a_body_that_breaks_off(server: Server, path: str, length: str, body: bytes) -> None:
    answer = server.send(request('POST', path, JSON, BEARER, length) + body)
    assert answer == b'' or status_of(answer) == 400  # who hangs up gets no answer


def post_bodies(server: Server, seed: int, count: int) -> Counter[int]:
    """The statuses of so many random bodies, over one connection that is kept alive."""
    dice = random.Random(seed)
    statuses: Counter[int] = Counter()
    connection = HTTPConnection(HOST, server.port, timeout=PATIENCE)
    for _ in range(count):
        headers = {'Content-Type': 'application/json', 'Authorization': f'Bearer {TOKEN}'}
        if dice.random() < 0.2:
            del headers[dice.choice(list(headers))]
        connection.request('POST', '/api/jobs', random_body(dice, NAMES), headers)
        answer = connection.getresponse()
        answer.read()
        statuses[answer.status] += 1
    connection.close()
    return statuses


@pytest.mark.parametrize('count', [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_random_bodies(server: Server, count: int) -> None:
    with ThreadPoolExecutor(8) as threads:
        rounds = threads.map(lambda seed: post_bodies(server, seed, count // 8), range(8))
        statuses = sum(rounds, Counter[int]())
    assert statuses.total() == count
    assert set(statuses) == {400, 401, 415}


def pour(server: Server, head: bytes, piece: bytes, pieces: int) -> bytes:
    """Send until there is an answer, or until all is sent; what was answered."""
    with server.connect() as client:
        client.sendall(head)
        answer = b''
        client.settimeout(0)
        for _ in range(pieces):
            rest = piece
            while rest and not answer:
                with contextlib.suppress(BlockingIOError):
                    answer = client.recv(65_536)
                try:
                    rest = rest[client.send(rest) :]
                except BlockingIOError:
                    time.sleep(0.001)
                except OSError:  # it has closed, and said why before
                    client.settimeout(PATIENCE)
                    return read_all(client)
            if answer:
                break
        client.settimeout(PATIENCE)
        return answer or read_all(client)


@pytest.mark.parametrize('header', [BEARER, 'X-Nothing: 1'])
@pytest.mark.parametrize('announced', [True, False])
@pytest.mark.parametrize('path', ['/api/jobs', '/api/artboard/create'])
def test_a_body_of_a_hundred_megabytes(
    server: Server, path: str, announced: bool, header: str
) -> None:
    piece = b'"' + b'x' * (64 * 1024 - 2) + b'"'
    length = 'Content-Length: 104857600' if announced else 'Transfer-Encoding: chunked'
    if not announced:
        piece = b'%x\r\n%s\r\n' % (len(piece), piece)
    answer = pour(server, request('POST', path, JSON, header, length), piece, 1600)
    assert status_of(answer) == 413  # from the server, which has not read it all


SLOW = {
    'says nothing': b'',
    'sends half a head': b'POST /api/jobs HTTP/1.1\r\nHost: x\r\nX-Slow: ',
    'announces a body': request('POST', '/api/artboard/create', JSON, 'Content-Length: 900') + b'{',
    'begins a chunk': request('POST', '/api/artboard/create', JSON, 'Transfer-Encoding: chunked')
    + b'5\r\n{',
    'has the token': request('POST', '/api/jobs', JSON, BEARER, 'Content-Length: 900') + b'{',
}


def has_ended(client: socket.socket) -> bool:
    """Whether the server has answered or closed."""
    return bool(select.select([client], [], [], 0)[0])


@pytest.mark.slow
def test_slow_clients_keep_nobody_waiting(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        clients = [
            (kind, stack.enter_context(server.connect()))
            for kind in SLOW
            for _ in range(SLOW_CLIENTS)
        ]
        for kind, client in clients:
            client.sendall(SLOW[kind])
        assert server.get('/healthz') == 200
        waiting = [client for _, client in clients if not has_ended(client)]
        # They hold nothing that the good request needs: they are more than there are threads.
        assert len(waiting) > len(clients) / 2
        for _ in range(20):
            assert server.get('/healthz') == 200
            for kind, client in clients:  # one byte more, now and then
                with contextlib.suppress(OSError):
                    client.send(SLOW[kind] and b'x')
        # And in the end they are told, or left.
        for kind, client in clients:
            answer = read_all(client)
            assert answer == b'' or status_of(answer) == 400, kind


def test_clients_that_do_not_close_keep_nobody_waiting(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(SLOW_CLIENTS):
            client = stack.enter_context(server.connect())
            client.sendall(request('GET', '/healthz'))  # which asks the server to close
        for _ in range(20):
            assert server.get('/healthz') == 200


@pytest.mark.slow
def test_memory_stays_flat(server: Server) -> None:
    large = {'task': 'generate_complex_svg', 'params': {'width': ['x' * 1000] * 1000}}
    body = json.dumps(large).encode()
    assert MEGABYTE * 0.9 < len(body) <= MEGABYTE

    def attack(seed: int) -> None:
        post_bodies(server, seed, 200)
        for _ in range(5):
            assert (
                status_of(server.send(request('POST', '/api/jobs', JSON, BEARER, body=body))) == 400
            )
            deep = b'{"task": "x", "params": ' + b'[' * 500_000
            assert (
                status_of(server.send(request('POST', '/api/jobs', JSON, BEARER, body=deep))) == 400
            )
            pour(server, request('POST', '/api/jobs', JSON, BEARER, 'Content-Length: 104857600'),
                 b'x' * 65_536, 40)  # fmt: skip

    def hold(rounds: int) -> float:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(attack, range(8 * rounds)))
        return server.memory()

    hold(2)  # to warm its threads
    grown = [hold(1)]
    # On a busy machine more requests are in work at once than before: a leak would grow each time.
    while len(grown) < 5 and (len(grown) == 1 or grown[-1] - grown[-2] >= 32):
        grown.append(hold(4))
    assert grown[-1] - grown[-2] < 32, grown

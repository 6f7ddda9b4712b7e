"""Redis is away, hangs, refuses, or answers into a cut connection."""

import os
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
from redis import Redis

from libraries.job_manager import (
    cancel_job,
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    get_job_statuses,
    list_jobs,
    retry_job,
    wait_for_job,
)
from qdjobs.client.redis import get_connection
from qdjobs.errors import QueueUnavailableError
from qdjobs.server import embedded_redis, free_port
from tests.support.applications import use_redis
from tests.support.processes import eventually
from tests.support.proxy import Proxy, connect_to

ADD = 'tests.support.tasks.add'
PROMISED = 2.0  # seconds that a call takes on an idle machine
PATIENCE = 30  # on a busy one: without a limit of ours, a call would take for ever

CALLS: dict[str, Callable[[], Any]] = {
    'enqueue one': lambda: enqueue_background_job(ADD, 1),
    'enqueue many': lambda: enqueue_background_jobs(ADD, [{'a': 1}] * 100),
    'status': lambda: get_job_status('x'),
    'statuses': lambda: get_job_statuses(['x', 'y']),
    'list': lambda: list_jobs('failed'),
    'list all': list_jobs,
    'cancel': lambda: cancel_job('x'),
    'retry': lambda: retry_job('x'),
    'wait': lambda: wait_for_job('x', 30),
}


@pytest.fixture
def proxy(proxy: Proxy, settings: pytest.MonkeyPatch) -> Proxy:
    """The proxy, and everything of this module goes through it."""
    use_redis(settings, proxy.url)
    return proxy


@pytest.fixture
def direct(redis_url: str) -> Iterator[Redis]:
    """A connection past the proxy."""
    with Redis.from_url(redis_url) as connection:
        yield connection


def refused(call: Callable[[], Any]) -> QueueUnavailableError:
    start = time.monotonic()
    with pytest.raises(QueueUnavailableError) as caught:
        call()
    assert time.monotonic() - start < PATIENCE
    return caught.value


@pytest.mark.parametrize('call', CALLS.values(), ids=CALLS.keys())
def test_a_server_that_is_not_there(settings: pytest.MonkeyPatch, call: Callable[[], Any]) -> None:
    use_redis(settings, f'redis://:secret@127.0.0.1:{free_port()}/0')
    error = refused(call)
    assert 'does not answer' in str(error)
    assert 'REDIS_URL' in str(error)
    assert 'secret' not in str(error)
    trace = ''.join(traceback.format_exception(error))
    assert 'Connection refused' in trace
    assert 'redis.exceptions' not in trace  # the causes, which hide the place in the caller's code


@pytest.mark.slow
@pytest.mark.usefixtures('impatient')
@pytest.mark.parametrize('call', CALLS.values(), ids=CALLS.keys())
def test_a_server_that_hangs(proxy: Proxy, call: Callable[[], Any]) -> None:
    proxy.hang = True
    refused(call)


@pytest.mark.usefixtures('impatient')
def test_what_a_call_waits_for_adds_up_to_what_is_promised() -> None:
    options = get_connection().connection_pool.connection_kwargs
    assert 0 < options['socket_connect_timeout'] + options['socket_timeout'] < PROMISED
    assert options['retry'].get_retries() == 0


@pytest.mark.usefixtures('impatient')
def test_a_server_that_starts_to_hang_under_an_open_connection(proxy: Proxy) -> None:
    enqueue_background_job(ADD, 1)
    proxy.hang = True
    refused(lambda: enqueue_background_job(ADD, 1))


def test_a_network_that_swallows_everything(settings: pytest.MonkeyPatch) -> None:
    with socket.create_server(('127.0.0.1', 0), backlog=0) as full:
        # With its backlog full, a listener leaves further connections waiting.
        waiting = [socket.socket() for _ in range(3)]
        for connection in waiting:
            connection.setblocking(False)
            connection.connect_ex(full.getsockname())
        use_redis(settings, f'redis://127.0.0.1:{full.getsockname()[1]}/0')
        assert refused(lambda: enqueue_background_job(ADD, 1)).job_id is None
        for connection in waiting:
            connection.close()


@pytest.mark.usefixtures('impatient')
def test_a_lost_answer_names_the_id_under_which_the_job_may_have_been_accepted(
    proxy: Proxy,
) -> None:
    proxy.hang = True
    own = refused(lambda: enqueue_background_job(ADD, 1, job_id='mine'))
    assert own.job_id == 'mine'
    assert "may have been accepted: repeat it with job_id='mine'" in str(own)
    assert refused(lambda: enqueue_background_job(ADD, 1)).job_id
    assert refused(lambda: get_job_status('x')).job_id is None


@pytest.mark.parametrize(
    'url',
    [
        'redis://127.0.0.1:{port}/0',
        'redis://no-such-host.invalid:{port}/0',
        'unix:///no/such/socket',
    ],
)
def test_a_job_that_was_never_sent_is_not_said_to_be_accepted(
    settings: pytest.MonkeyPatch, url: str
) -> None:
    use_redis(settings, url.format(port=free_port()))
    error = refused(lambda: enqueue_background_job(ADD, 1, job_id='mine'))
    assert error.job_id is None
    assert 'accepted' not in str(error)


def test_a_connection_that_was_closed_before_the_job_was_sent_is_made_anew(
    settings: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    use_redis(settings, f'redis://127.0.0.1:{port}/0')
    with embedded_redis(port):
        enqueue_background_job(ADD, 1)
    assert refused(lambda: enqueue_background_job(ADD, 1)).job_id is None


@pytest.mark.parametrize('options', [{}, {'job_delay': 60}, {'job_id': 'mine'}])
def test_a_cut_after_execution_neither_doubles_nor_halves_a_job(
    proxy: Proxy, direct: Redis, options: dict[str, Any]
) -> None:
    enqueue_background_job(ADD, 0)  # the server knows the script from here on
    direct.flushdb()
    proxy.cut_after = b'EVALSHA'
    error = refused(lambda: enqueue_background_job(ADD, 1, **options))
    proxy.cut_after = None
    assert proxy.cuts == 1
    assert error.job_id is not None
    assert places(direct) == [error.job_id]

    time.sleep(0.2)
    assert places(direct) == [error.job_id]
    repeated = enqueue_background_job(ADD, 1, **(options | {'job_id': error.job_id}))
    assert places(direct) == [repeated.id] == [error.job_id]


def test_a_cut_batch_stands_once_and_can_be_repeated(proxy: Proxy, direct: Redis) -> None:
    enqueue_background_job(ADD, 0)
    direct.flushdb()
    calls = [{'a': number} for number in range(50)]
    proxy.cut_after = b'EVALSHA'
    error = refused(lambda: enqueue_background_jobs(ADD, calls))
    proxy.cut_after = None
    assert len(places(direct)) == 50
    jobs = enqueue_background_jobs(ADD, calls, job_id=error.job_id)
    assert places(direct) == [job.id for job in jobs]


@pytest.mark.upstream
def test_the_control_redis_py_as_it_comes_repeats_itself(proxy: Proxy, direct: Redis) -> None:
    proxy.cut_after = b'RPUSH'
    proxy.max_cuts = 2
    with Redis(port=urlsplit(proxy.url).port or 0) as client:
        client.rpush('list', 'job')
    assert direct.llen('list') == 3


def places(redis: Redis) -> list[str]:
    waiting = redis.lrange('rq:queue:default', 0, -1)
    scheduled = redis.zrange('rq:scheduled:default', 0, -1)
    return [job_id.decode() for job_id in [*waiting, *scheduled]]


def test_it_works_again_as_soon_as_the_server_is_back(settings: pytest.MonkeyPatch) -> None:
    port = free_port()
    use_redis(settings, f'redis://127.0.0.1:{port}/0')
    with embedded_redis(port):
        enqueue_background_job(ADD, 1)
    refused(lambda: enqueue_background_job(ADD, 1))
    with embedded_redis(port):
        assert get_job_status(enqueue_background_job(ADD, 1).id)['status'] == 'queued'


@contextmanager
def own_server(settings: pytest.MonkeyPatch) -> Iterator[Redis]:
    with embedded_redis() as url, Redis.from_url(url) as admin:
        use_redis(settings, url)
        enqueue_background_job(ADD, 1)
        yield admin


@pytest.mark.parametrize(
    ('command', 'told'),
    [
        (('CONFIG', 'SET', 'maxmemory', '1'), 'maxmemory'),
        (('REPLICAOF', '127.0.0.1', '1'), 'read only'),
        (('CONFIG', 'SET', 'requirepass', 'secret'), 'uthenticat'),
        (('CONFIG', 'SET', 'min-replicas-to-write', '3'), 'NOREPLICAS'),
    ],
)
def test_a_server_that_refuses_takes_nothing(
    settings: pytest.MonkeyPatch, command: tuple[str, ...], told: str
) -> None:
    with own_server(settings) as admin:
        keys = admin.dbsize()
        admin.execute_command(*command)
        get_connection().connection_pool.disconnect()
        for number in (1, 300):
            error = refused(lambda n=number: enqueue_background_jobs(ADD, [{'a': 1}] * n))  # type: ignore[misc]
            assert told in str(error)
            assert error.job_id is None
        assert admin.dbsize() == keys


def test_the_connection_to_a_demoted_primary_is_dropped(settings: pytest.MonkeyPatch) -> None:
    def links() -> set[int]:
        return {int(client['id']) for client in admin.client_list()}

    with own_server(settings) as admin:
        pool = get_connection().connection_pool
        busy = pool.get_connection()  # of another thread
        enqueue_background_job(ADD, 1)
        before = get_connection().client_id()
        assert before in links()
        admin.execute_command('REPLICAOF', '127.0.0.1', '1')
        refused(lambda: enqueue_background_job(ADD, 1))
        eventually(lambda: before not in links())
        busy.send_command('PING')
        assert busy.read_response() == b'PONG'
        pool.release(busy)

        admin.execute_command('REPLICAOF', 'NO', 'ONE')
        assert get_job_status(enqueue_background_job(ADD, 1).id)['status'] == 'queued'


def test_a_key_of_another_kind_leaves_no_half_written_job(connection: Redis) -> None:
    connection.set('rq:queue:default', 'not a list')
    refused(lambda: enqueue_background_jobs(ADD, [{'a': 1}] * 3, job_id='x'))
    assert not connection.exists('rq:job:x-0')


def test_a_forked_process_has_a_connection_of_its_own() -> None:
    enqueue_background_job(ADD, 1)
    link = get_connection().client_id()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        enqueue_background_job(ADD, 2)
        os.write(writer, str(get_connection().client_id()).encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert int(os.read(reader, 100)) != link
    os.close(reader)
    os.close(writer)
    assert get_connection().client_id() == link
    assert len(list_jobs('queued')) == 2


@contextmanager
def tls_in_front_of(redis_url: str, folder: Path) -> Iterator[tuple[int, Path]]:
    """A TLS port before the server, and the certificate of the authority that signed for it."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert('127.0.0.1').configure_cert(context)
    authority.cert_pem.write_to_path(str(folder / 'authority.pem'))
    listener = socket.create_server(('127.0.0.1', 0))

    def serve() -> None:
        while True:
            try:
                raw, _ = listener.accept()
                client = context.wrap_socket(raw, server_side=True)
            except ssl.SSLError:
                raw.close()  # a client that does not trust us
                continue
            except OSError:
                return
            server = connect_to(redis_url)
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=copy, args=(source, sink), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1], folder / 'authority.pem'
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        return
    finally:
        source.close()


def test_tls_is_verified_unless_the_url_says_otherwise(
    redis_url: str, settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with tls_in_front_of(redis_url, tmp_path) as (port, authority):
        plain = f'rediss://127.0.0.1:{port}/0'
        use_redis(settings, plain)
        error = refused(lambda: enqueue_background_job(ADD, 1))
        assert 'CERTIFICATE_VERIFY_FAILED' in str(error)
        assert error.job_id is None
        for trusted in (f'{plain}?ssl_ca_certs={authority}', f'{plain}?ssl_cert_reqs=none'):
            use_redis(settings, trusted)
            assert get_job_status(enqueue_background_job(ADD, 1).id)['status'] == 'queued'
        use_redis(settings, f'rediss://localhost:{port}/0?ssl_ca_certs={authority}')
        refused(lambda: enqueue_background_job(ADD, 1))  # the certificate is for another name
        get_connection().close()

"""Redis fails over while jobs are enqueued and run: three Sentinels, a primary and two replicas."""

import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import CliRunner
from flask import Flask
from rq.cli.cli import main as rq_command

from app import create_app
from libraries.job_manager import (
    QueueUnavailableError,
    cancel_job,
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    wait_for_job,
)
from qdjobs.client.redis import get_connection
from qdjobs.server import HOST
from tests.faults import failovers
from tests.faults.failovers import (
    DEATHS,
    ENVIRONMENT,
    PROTECTED,
    PROTECTED_SERVER,
    cut_off,
    killed,
    planned,
    run_failovers,
    slow,
)
from tests.support.applications import use_redis
from tests.support.outages import standing
from tests.support.processes import Worker, eventually
from tests.support.sentinels import PATIENT, Service, running_service

ADD = 'tests.support.tasks.add'
WAIT_FOR = 'tests.support.fault_tasks.begin_and_wait'

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope='module')
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp('service'), down_after=PATIENT) as service:
        yield service


@pytest.fixture
def service(shared_service: Service, settings: pytest.MonkeyPatch) -> Service:
    """Whole, with an empty Redis that everything here uses."""
    shared_service.await_replicas()
    settings.setenv('RQ_CONNECTION_CLASS', 'qdjobs.JobRedis')
    settings.setenv('JOB_TASK_MODULES', 'tests.support.tasks,tests.support.fault_tasks')
    use_redis(settings, shared_service.url)
    get_connection().flushall()
    return shared_service


def fail_over(service: Service) -> None:
    primary = service.primary
    killed(service, primary)
    primary.follow(service.primary)


def flask_jobs(app: Flask, *arguments: str) -> str:
    result = app.test_cli_runner().invoke(args=['jobs', *arguments])
    return result.output


def test_everything_finds_the_primary_before_and_after_a_fail_over(
    service: Service, own_worker: Worker, settings: pytest.MonkeyPatch
) -> None:
    settings.setenv('DASHBOARD_USERNAME', 'anna')
    settings.setenv('DASHBOARD_PASSWORD', 'secret')
    use_redis(settings, service.url)
    app = create_app()
    with own_worker():
        for turn in ('before', 'after'):
            job = enqueue_background_job(ADD, 1)
            assert wait_for_job(job.id, 60)['status'] == 'finished', turn
            dashboard = app.test_client().get('/rq/', auth=('anna', 'secret'))
            assert dashboard.status_code == 200
            assert 'Every queue has a worker' in flask_jobs(app, 'doctor')
            assert job.id in flask_jobs(app, 'list', '--status', 'finished')
            shown = CliRunner().invoke(
                rq_command, ['info', '--url', service.url], catch_exceptions=False
            )
            assert '1 workers, ' in shown.output
            if turn == 'before':
                fail_over(service)
                eventually(is_reached)


def is_reached() -> bool:
    try:
        enqueue_background_job(ADD, 1, job_delay=3600)
    except QueueUnavailableError:
        return False
    return True


def test_flask_jobs_worker_finds_it_too(service: Service) -> None:
    job = enqueue_background_job(ADD, 1)
    flask = Path(sys.executable).with_name('flask')
    environment = {
        name: value for name, value in os.environ.items() if name != 'RQ_CONNECTION_CLASS'
    }
    subprocess.run(
        [flask, '--app', 'app', 'jobs', 'worker', '--burst'], env=environment, check=True
    )
    assert get_job_status(job.id)['status'] == 'finished'


def test_a_stop_reaches_a_job_after_a_fail_over(
    service: Service, own_worker: Worker, tmp_path: Path
) -> None:
    with own_worker():
        assert wait_for_job(enqueue_background_job(ADD, 1).id, 60)['status'] == 'finished'
        fail_over(service)
        eventually(is_reached)
        job = enqueue_background_job(WAIT_FOR, str(tmp_path / 'log'), str(tmp_path / 'gate'))
        eventually(lambda: get_job_status(job.id)['status'] == 'started')
        assert cancel_job(job.id) == 'stopping'
        assert wait_for_job(job.id, 60)['status'] == 'stopped'


class TestWithReplicasThatMustHaveEachJob:
    """JOB_WAIT_REPLICAS."""

    @pytest.fixture(autouse=True)
    def protected(self, service: Service, settings: pytest.MonkeyPatch) -> None:
        settings.setenv('JOB_WAIT_REPLICAS', '1')
        use_redis(settings, service.url)

    @pytest.mark.parametrize('many', [False, True])
    def test_a_job_that_no_replica_has_is_in_doubt(self, service: Service, many: bool) -> None:
        def enqueue() -> str:
            if many:
                return enqueue_background_jobs(ADD, [{'a': 1}], job_id='x')[0].id
            return enqueue_background_job(ADD, 1, job_id='x').id

        with standing(*(replica.pid for replica in service.replicas)):
            for _ in range(2):  # also if the job is there, and the call writes nothing
                with pytest.raises(QueueUnavailableError, match='only 0 of 1 replicas') as caught:
                    enqueue()
                assert caught.value.job_id == 'x'
        eventually(lambda: is_accepted(enqueue))
        assert get_connection().llen('rq:queue:default') == 1

    def test_an_outcome_that_no_replica_has_is_written_again(
        self, service: Service, own_worker: Worker, tmp_path: Path
    ) -> None:
        """The former primary knew how the job has ended; the next must hear of it too."""
        job = enqueue_background_job(WAIT_FOR, str(tmp_path / 'log'), str(tmp_path / 'gate'))
        with own_worker(JOB_LEASE='30'):
            eventually((tmp_path / 'log').exists)
            primary = service.primary
            primary.link.cut_from_replicas()
            (tmp_path / 'gate').touch()
            eventually(lambda: 'only 0 of 1 replicas' in (tmp_path / 'worker.log').read_text())
            killed(service, primary)
            primary.link.heal()
            primary.follow(service.primary)
            eventually(is_reached)
            assert wait_for_job(job.id, 60)['status'] == 'finished'
        assert len((tmp_path / 'log').read_text().splitlines()) == 1

    @pytest.mark.parametrize('forbidden', ['wait', 'publish'])
    def test_what_may_have_been_accepted_is_in_doubt_whatever_the_reason(
        self, service: Service, forbidden: str
    ) -> None:
        with service.primary.connection() as direct:
            direct.execute_command('ACL', 'SETUSER', 'default', f'-{forbidden}')
            try:
                with pytest.raises(QueueUnavailableError, match=forbidden) as caught:
                    enqueue_background_job(ADD, 1, job_id='x')
            finally:
                direct.execute_command('ACL', 'SETUSER', 'default', '+@all')
        assert caught.value.job_id == 'x'
        assert get_connection().exists('rq:job:x')

    def test_a_worker_whose_outcome_is_in_doubt_claims_nothing(
        self, service: Service, own_worker: Worker, tmp_path: Path
    ) -> None:
        """Nobody would renew the lease of that job: its death would be counted."""
        log, gate = tmp_path / 'log', tmp_path / 'gate'
        first = enqueue_background_job(WAIT_FOR, str(log), str(gate))
        second = enqueue_background_job(ADD, 1)
        with own_worker(JOB_LEASE='10'):
            eventually(log.exists)
            with standing(*(replica.pid for replica in service.replicas)):
                gate.touch()
                eventually(lambda: 'only 0 of 1 replicas' in (tmp_path / 'worker.log').read_text())
                assert get_job_status(second.id)['status'] == 'queued'
            assert wait_for_job(first.id, 60)['status'] == 'finished'
            assert wait_for_job(second.id, 60)['attempts'] == []
        assert 'Redis is away' not in (tmp_path / 'worker.log').read_text()

    def test_a_primary_without_replicas_refuses(self, service: Service) -> None:
        """min-replicas-to-write: nothing is written, so nothing is in doubt."""
        primary = service.primary
        with primary.connection() as direct:
            direct.config_set('min-replicas-to-write', 3)
            try:
                with pytest.raises(QueueUnavailableError, match='NOREPLICAS') as caught:
                    enqueue_background_job(ADD, 1, job_id='x')
            finally:
                direct.config_set('min-replicas-to-write', 0)
        assert caught.value.job_id is None
        assert not get_connection().exists('rq:job:x')

    def test_the_doctor_counts_the_replicas(
        self, service: Service, settings: pytest.MonkeyPatch
    ) -> None:
        app = create_app()
        report = flask_jobs(app, 'doctor')
        assert 'It has 2 replicas, and JOB_WAIT_REPLICAS is 1' in report
        port = service.primary.link.port
        assert f'valkey-cli -h {HOST} -p {port} config set min-replicas-to-write 1' in report
        settings.setenv('JOB_WAIT_REPLICAS', '2')
        use_redis(settings, service.url)
        assert 'It has 2 replicas, and all must have each job.' in flask_jobs(
            create_app(), 'doctor'
        )
        settings.setenv('JOB_WAIT_REPLICAS', '3')
        use_redis(settings, service.url)
        assert 'no job can be enqueued' in flask_jobs(create_app(), 'doctor')


def is_accepted(enqueue: Any) -> bool:
    try:
        enqueue()
    except QueueUnavailableError:
        return False
    return True


def test_the_doctor_says_what_a_fail_over_can_lose(service: Service) -> None:
    assert 'JOB_WAIT_REPLICAS is not set' in flask_jobs(create_app(), 'doctor')


def test_sentinels_that_hang_or_are_gone_are_passed_over(service: Service) -> None:
    first, second, _ = service.sentinels
    with standing(first.pid, second.pid):
        get_connection().connection_pool.disconnect()
        eventually(is_reached)


def test_a_server_that_is_named_but_no_primary_gets_no_connection(service: Service) -> None:
    """As one that has just become a replica, until all Sentinels have heard of it."""
    primary, other = service.primary, service.replicas[0]
    get_connection().connection_pool.disconnect()
    primary.follow(other)
    try:
        with pytest.raises(QueueUnavailableError, match='is no longer the primary') as caught:
            enqueue_background_job(ADD, 1, job_id='x')
        assert caught.value.job_id is None
    finally:
        with primary.connection() as direct:
            direct.replicaof('NO', 'ONE')


@pytest.mark.usefixtures('impatient')
def test_a_hung_primary_that_goes_on_gets_no_more_jobs(service: Service) -> None:
    """Its idle connections are open, and it believes to be the primary still."""
    pool = get_connection().connection_pool
    links = [pool.get_connection() for _ in range(3)]
    for link in links:
        pool.release(link)
    former = service.primary
    os.kill(former.pid, signal.SIGSTOP)
    service.await_another(former)
    eventually(is_reached)
    os.kill(former.pid, signal.SIGCONT)
    jobs = [enqueue_background_job(ADD, 1) for _ in range(6)]
    with ExitStack() as stack:
        taken = [pool.get_connection() for _ in range(3)]
        for link in taken:
            stack.callback(pool.release, link)
        assert {link.port for link in taken} == {service.primary.link.port}
    former.follow(service.primary)
    assert all(get_job_status(job.id)['status'] == 'queued' for job in jobs)


def test_both_can_have_passwords_and_tls(
    tmp_path: Path, settings: pytest.MonkeyPatch, own_worker: Worker
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(HOST).configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / 'authority.pem'))
    settings.setenv('RQ_CONNECTION_CLASS', 'qdjobs.JobRedis')
    settings.setenv('JOB_REDIS_OPTIONS', f'ssl_ca_certs={tmp_path}/authority.pem')
    passwords = ('of-servers', 'of-sentinels')
    with running_service(tmp_path, passwords=passwords, tls=context, down_after=PATIENT) as service:
        use_redis(settings, service.url)
        with own_worker():
            assert wait_for_job(enqueue_background_job(ADD, 1).id, 60)['status'] == 'finished'
        for wrong in (
            service.url.replace('of-servers', 'wrong'),
            service.url.replace('of-sentinels', 'wrong'),
        ):
            use_redis(settings, wrong)
            with pytest.raises(QueueUnavailableError) as caught:
                enqueue_background_job(ADD, 1)
            assert caught.value.job_id is None
            assert 'of-s' not in str(caught.value)


def test_no_accepted_job_is_lost(tmp_path: Path, settings: pytest.MonkeyPatch) -> None:
    """`python -m benchmarks.failover` has many more."""
    with running_service(tmp_path, PROTECTED_SERVER, down_after=PATIENT) as service:
        settings.setenv('JOB_TASK_MODULES', ENVIRONMENT['JOB_TASK_MODULES'])
        use_redis(settings, service.url)
        losses = run_failovers(service, tmp_path, DEATHS, PROTECTED, is_hurried=True)
    assert losses.accepted > 0
    assert losses.lost == {'killed': 0, 'stopped': 0, 'cut_off': 0}
    assert losses.doubled == 0


@pytest.mark.parametrize(('replicas', 'is_lossless'), [('1', False), ('2', True)])
def test_a_primary_that_is_replaced_while_it_lives_needs_all_replicas(
    tmp_path: Path, settings: pytest.MonkeyPatch, replicas: str, is_lossless: bool
) -> None:
    """The replica that is not promoted follows the former primary for another second."""
    environment = {'JOB_WAIT_REPLICAS': replicas}
    with running_service(tmp_path, PROTECTED_SERVER, down_after=PATIENT) as service:
        settings.setenv('JOB_TASK_MODULES', ENVIRONMENT['JOB_TASK_MODULES'])
        use_redis(settings, service.url)
        losses = run_failovers(service, tmp_path, [slow, planned], environment, is_hurried=True)
    assert (sum(losses.lost.values()) == 0) == is_lossless


def test_the_control_without_replicas_that_must_have_them(
    tmp_path: Path, settings: pytest.MonkeyPatch
) -> None:
    with running_service(tmp_path, down_after=PATIENT) as service:
        settings.setenv('JOB_TASK_MODULES', ENVIRONMENT['JOB_TASK_MODULES'])
        use_redis(settings, service.url)
        settings.setattr(failovers, 'CUT_FOR', 2.0)  # so that it accepts jobs on a busy machine
        losses = run_failovers(service, tmp_path, [cut_off], {}, is_hurried=True)
    assert losses.lost['cut_off'] > 0

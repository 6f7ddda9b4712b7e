"""Rolling deploys: jobs of one version of the code reach workers of another."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job

from libraries.job_manager import enqueue_background_job, get_job_status
from qdjobs.client.tasks import forget_tasks
from qdjobs.config import environment_config
from tests.support.jobs import done, require_living
from tests.support.processes import ROOT, Worker, eventually

pytestmark = pytest.mark.slow

CALM = {'JOB_LEASE': '10'}  # for tests that are not about leases
TASK = 'deployed.mail.send'
NEW_CODE = 'def send(number):\n    return number + 1\n'
# What the module of the task is in the old code; None: there is none.
OLD_CODE = {
    'no function': 'def receive():\n    pass\n',
    'no module': None,
    'no import': 'import a_library_of_the_new_code\n',
}

Deploy = Callable[[str, str | None], dict[str, str]]


@pytest.fixture
def deploy(tmp_path: Path, settings: pytest.MonkeyPatch) -> Deploy:
    """Writes a release with that code of the task; returns the environment of its workers."""
    modules = 'tests.support.tasks,deployed'
    settings.setenv('JOB_TASK_MODULES', modules)
    environment_config.cache_clear()

    def write(release: str, code: str | None) -> dict[str, str]:
        package = tmp_path / release / 'deployed'
        package.mkdir(parents=True)
        (package / '__init__.py').touch()
        if code is not None:
            (package / 'mail.py').write_text(code)
        return CALM | {'PYTHONPATH': f'{ROOT}:{package.parent}', 'JOB_TASK_MODULES': modules}

    return write


@pytest.mark.parametrize('old', OLD_CODE)
def test_a_task_of_the_new_code_waits_for_a_worker_that_has_it(
    plain_queue: Queue, own_worker: Worker, deploy: Deploy, old: str
) -> None:
    job = plain_queue.enqueue(TASK, 1)
    with own_worker(**deploy('old', OLD_CODE[old])) as worker:
        eventually(lambda: released(job) or get_job_status(job.id)['ended_at'])
        assert get_job_status(job.id)['status'] in ('scheduled', 'queued', 'started')
        require_living(worker)
    with own_worker(**deploy('new', NEW_CODE)):
        status = done(job)
    assert (status['status'], status['result']) == ('finished', 2)


def test_it_is_tried_again_by_the_old_worker_and_kept(
    connection: Redis, plain_queue: Queue, own_worker: Worker, deploy: Deploy
) -> None:
    """Later each time: an old worker has other things to do."""
    job = plain_queue.enqueue(TASK, 1)
    with own_worker(**deploy('old', None)):
        times: list[float] = []

        def look() -> bool:
            due = connection.zscore('rq:scheduled:default', job.id)
            if isinstance(due, float) and due not in times:
                times.append(due)
            return len(times) == 3 or get_job_status(job.id)['status'] == 'failed'

        eventually(look)
        assert get_job_status(job.id)['status'] in ('scheduled', 'queued', 'started')
    first, second = times[1] - times[0], times[2] - times[1]
    assert second > first


def test_it_fails_in_the_end(plain_queue: Queue, own_worker: Worker, deploy: Deploy) -> None:
    job = plain_queue.enqueue(TASK, 1)
    with own_worker(JOB_UNKNOWN_TASK_GRACE='1', **deploy('old', None)) as worker:
        status = done(job)
        require_living(worker)
    assert status['status'] == 'failed'
    assert 'UnknownTaskError' in str(status['error'])
    assert TASK in str(status['error'])
    assert status['ended_at'] is not None
    assert status['created_at'] is not None
    assert (status['ended_at'] - status['created_at']).total_seconds() > 1


def test_the_control_what_no_worker_may_run_fails_at_once(
    plain_queue: Queue, own_worker: Worker, deploy: Deploy
) -> None:
    with own_worker(**deploy('old', None)):
        status = done(plain_queue.enqueue('os.path.join', 'a'))
    assert status['status'] == 'failed'
    assert 'outside the allowed task modules' in str(status['error'])


# Another signature

ONE, BOTH = NEW_CODE, 'def send(number, copies=1):\n    return number + copies\n'
TWO = 'def send(number, copies):\n    return number + copies\n'
Send = Callable[..., Job]


@pytest.fixture
def send(tmp_path: Path, settings: pytest.MonkeyPatch) -> Send:
    """Enqueues the task as the web process of a release does, whose code checks the arguments."""

    def enqueue(release: str, *args: int) -> Job:
        settings.syspath_prepend(str(tmp_path / release))
        for name in [name for name in sys.modules if name.split('.')[0] == 'deployed']:
            del sys.modules[name]
        forget_tasks()
        return enqueue_background_job(TASK, *args)

    return enqueue


def released(job: Job) -> bool:
    return get_job_status(job.id)['status'] == 'scheduled'


@pytest.mark.parametrize(
    ('sender', 'args', 'other'),
    [(TWO, (1, 1), ONE), (ONE, (1,), TWO)],
    ids=['new job, old worker', 'old job, new worker'],
)
def test_a_job_whose_arguments_do_not_fit_waits_for_a_worker_whose_code_takes_them(
    own_worker: Worker, deploy: Deploy, send: Send, sender: str, args: tuple[int, ...], other: str
) -> None:
    mine, its = deploy('mine', sender), deploy('its', other)
    job = send('mine', *args)
    with own_worker(**its) as worker:
        eventually(lambda: released(job) or get_job_status(job.id)['ended_at'])
        says = 'Waits for a worker of another version: restart the workers with the new code. '
        assert str(get_job_status(job.id)['error'] or says).startswith(says)  # it may run again now
        require_living(worker)
    # Not beside it: which of two claims the job is chance, and each release waits longer.
    with own_worker(**mine):
        status = done(job)
    assert (status['status'], status['result'], status['attempts']) == ('finished', 2, [])


def test_the_procedure_has_each_job_run_by_each_version(
    own_worker: Worker, deploy: Deploy, send: Send
) -> None:
    """A parameter is added with a default, and required only in a later release."""
    deploy('one', ONE)
    both = deploy('both', BOTH)
    first, second = send('one', 1), send('both', 1, 2)
    with own_worker(**both):
        assert [done(job)['result'] for job in (first, second)] == [2, 3]
    third = send('both', 1, 3)
    with own_worker(**deploy('two', TWO)):
        assert done(third)['result'] == 4


def test_arguments_that_fit_no_worker_fail_in_the_end(
    own_worker: Worker, deploy: Deploy, send: Send
) -> None:
    deploy('mine', TWO)
    job = send('mine', 1, 1)
    with own_worker(JOB_UNKNOWN_TASK_GRACE='1', **deploy('its', ONE)):
        status = done(job)
    assert status['status'] == 'failed'
    says = "TypeError: This worker's version of the task does not take these arguments"
    assert str(status['error']).startswith(says)


def test_the_control_arguments_that_nobody_has_checked_fail_at_once(
    plain_queue: Queue, own_worker: Worker, deploy: Deploy
) -> None:
    """RQ's own enqueue checks nothing: there need be no code that takes them."""
    with own_worker(**deploy('old', ONE)):
        status = done(plain_queue.enqueue(TASK, 1, 1))
    assert str(status['error']).startswith('TypeError: ')

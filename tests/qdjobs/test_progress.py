"""Progress: told now and then inside a job, and not at all outside."""

from pathlib import Path

import pytest
from redis import Redis

from libraries.job_manager import enqueue_background_job, get_job_status, wait_for_job
from qdjobs.config import environment_config
from qdjobs.progress import Progress, current_job, report_progress, track
from tests.support.processes import eventually

HALF_WAY = Progress(done=2, total=4, message='half-way')

with_a_worker = pytest.mark.usefixtures('shared_worker')


@pytest.fixture(autouse=True)
def tasks(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_TASK_MODULES', 'workers,tests.support.tasks,tests.support.progress_tasks')
    environment_config.cache_clear()


def test_outside_a_job_rows_are_passed_on_and_nothing_is_told(connection: Redis) -> None:
    assert list(track(range(3), message='rows')) == [0, 1, 2]
    assert list(track(iter('ab'))) == ['a', 'b']
    report_progress(1, 2, 'half')
    assert current_job() is None
    assert connection.dbsize() == 0


@with_a_worker
def test_a_running_job_tells_how_far_it_is(tmp_path: Path) -> None:
    gate = tmp_path / 'gate'
    job = enqueue_background_job('tests.support.progress_tasks.stop_half_way', str(gate))
    eventually(lambda: get_job_status(job.id)['progress'] == HALF_WAY)
    gate.touch()
    status = wait_for_job(job.id, 60)
    assert status['status'] == 'finished'
    assert status['progress'] == {'done': 4, 'total': 4, 'message': 'half-way'}


@with_a_worker
def test_many_rows_are_few_writes(connection: Redis) -> None:
    wait_for_job(enqueue_background_job('tests.support.tasks.add', 1).id, 60)
    connection.config_resetstat()
    job = enqueue_background_job('tests.support.progress_tasks.count', 100_000)
    status = wait_for_job(job.id, 60)
    assert status['result'] == 100_000
    assert status['progress'] == {'done': 100_000, 'total': 100_000, 'message': ''}
    assert connection.info('commandstats')['cmdstat_hset']['calls'] < 100


@with_a_worker
def test_a_task_knows_its_id_and_its_attempt() -> None:
    job = enqueue_background_job(
        'tests.support.progress_tasks.third_time_lucky', job_max_retries=3, job_retry_delay=0
    )
    assert wait_for_job(job.id, 60)['result'] == [job.id, 3]


@with_a_worker
@pytest.mark.parametrize('total', [None, 2])
def test_progress_and_failed_attempts_stand_side_by_side(total: int | None) -> None:
    job = enqueue_background_job('tests.support.progress_tasks.fail_half_way', total)
    status = wait_for_job(job.id, 60)
    assert status['progress'] == {'done': 0, 'total': 2, 'message': ''}
    assert [attempt['error'] for attempt in status['attempts']] == ['ValueError: half-way']


@with_a_worker
def test_a_batch_of_drawings_tells_its_progress() -> None:
    drawings = [
        {
            'width': 100.0,
            'height': 100.0,
            'pattern_type': 'grid',
            'output_filename': f'{number}.svg',
        }
        for number in range(3)
    ]
    job = enqueue_background_job('workers.svg_tasks.batch_generate_svgs', drawings)
    status = wait_for_job(job.id, 60)
    assert status['error'] is None
    assert status['progress'] == {'done': 3, 'total': 3, 'message': 'drawing'}


@with_a_worker
def test_a_record_that_is_gone_does_not_come_back(connection: Redis, tmp_path: Path) -> None:
    gate = tmp_path / 'gate'
    job = enqueue_background_job('tests.support.progress_tasks.stop_half_way', str(gate))
    eventually(lambda: get_job_status(job.id)['progress'] == HALF_WAY)
    connection.delete(job.key)
    gate.touch()
    follower = enqueue_background_job('tests.support.tasks.add', 1)
    assert wait_for_job(follower.id, 60)['result'] == 3
    assert connection.exists(job.key) == 0

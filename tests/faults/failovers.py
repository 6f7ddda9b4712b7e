"""Fail-overs while jobs are enqueued and run, and which of the accepted jobs are lost by them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from qdjobs import QueueUnavailableError, enqueue_background_job
from qdjobs.client.status import read_statuses
from tests.faults.storm import Storm
from tests.support.processes import JOB_WORKER, QUICK, ROOT, eventually
from tests.support.sentinels import Member, Service

PATIENCE = 180  # seconds for jobs to finish on a busy machine
REFUSED = '.refused'
CUT_FOR = 0.5  # seconds in which a primary without replicas goes on, before it dies
ENVIRONMENT = QUICK | {
    'JOB_LEASE': '2',
    # A lease can expire while no primary renews it. That is taken for a worker's death.
    'JOB_MAX_WORKER_DEATHS': '1000',
    'JOB_TASK_MODULES': 'tests.support.tasks',
    'RQ_CONNECTION_CLASS': 'qdjobs.JobRedis',
    # Hershey-Fonts installs a package `tests` of its own.
    'PYTHONPATH': str(ROOT),
}
PROTECTED = {'JOB_WAIT_REPLICAS': '1'}
PROTECTED_SERVER = {'min-replicas-to-write': '1'}


def killed(service: Service, primary: Member) -> None:
    """The primary dies, and comes back as it was: as a primary, until a Sentinel sees it."""
    primary.kill()
    service.await_another(primary)
    primary.start()


def stopped(service: Service, primary: Member) -> None:
    """The primary hangs, and knows nothing of another when it goes on."""
    os.kill(primary.pid, signal.SIGSTOP)
    service.await_another(primary)
    os.kill(primary.pid, signal.SIGCONT)


def cut_off(service: Service, primary: Member) -> None:
    """The primary loses its replicas, goes on for a moment, and dies."""
    primary.link.cut_from_replicas()
    time.sleep(CUT_FOR)
    killed(service, primary)
    primary.link.heal()


def slow(service: Service, primary: Member) -> None:
    """The primary hangs until another is promoted, and goes on with the replica that it has."""
    os.kill(primary.pid, signal.SIGSTOP)
    eventually(lambda: any(other.is_primary() for other in service.members if other is not primary))
    os.kill(primary.pid, signal.SIGCONT)
    service.await_another(primary)


def planned(service: Service, primary: Member) -> None:
    """An operator has another promoted."""
    service.fail_over()
    service.await_another(primary)


Fault = Callable[[Service, Member], None]
DEATHS: tuple[Fault, ...] = (killed, stopped, cut_off)
FAULTS: tuple[Fault, ...] = (*DEATHS, slow, planned)


@dataclass(frozen=True)
class Losses:
    """What a storm of fail-overs has left."""

    accepted: int
    lost: dict[str, int]  # by the fault
    doubled: int  # jobs that Redis has though it has refused them: the caller takes another id
    seconds: Sequence[float]  # of each fail-over, until a new job is accepted


def run_failovers(
    service: Service,
    folder: Path,
    faults: Sequence[Fault],
    environment: dict[str, str],
    is_hurried: bool = False,
) -> Losses:
    """Let 4 workers run what 2 processes enqueue, and strike again and again.

    A former primary is made a replica by the Sentinels, as in production, which takes them ten
    seconds; if that `is_hurried`, by us.
    """
    environment = ENVIRONMENT | environment | {'REDIS_URL': service.url}
    lost = {fault.__name__: 0 for fault in faults}
    seconds = []
    accepted: list[str] = []
    with Storm(JOB_WORKER, folder, environment, size=4) as storm:
        for number, fault in enumerate(faults):
            with enqueuing(folder, f'{number}', environment) as accepted_now:
                eventually(lambda: len(accepted_now()) > 20)
                seconds.append(_fail_over(service, fault, accepted_now, is_hurried))
            ids = accepted_now()
            accepted += ids
            lost[fault.__name__] += len(_lost(ids, storm))
        refused = _lines(sorted(folder.glob(f'*{REFUSED}')))
        doubled = sum(status is not None for status in read_statuses(refused))
    return Losses(len(accepted), lost, doubled, seconds)


def _fail_over(
    service: Service, fault: Fault, accepted: Callable[[], list[str]], is_hurried: bool
) -> float:
    primary = service.primary
    begin = time.monotonic()
    fault(service, primary)
    before = len(accepted())
    eventually(lambda: len(accepted()) > before)
    seconds = time.monotonic() - begin
    if is_hurried:
        primary.follow(service.primary)
    service.await_replicas()
    return seconds


@contextmanager
def enqueuing(
    folder: Path, name: str, environment: dict[str, str]
) -> Iterator[Callable[[], list[str]]]:
    """Two processes that enqueue jobs until the block ends. Yields what reads the accepted ids."""
    files = [folder / f'accepted-{name}-{n}' for n in range(2)]
    command = [sys.executable, '-m', 'tests.faults.failovers']
    with ExitStack() as stack:
        for file in files:
            process = stack.enter_context(
                subprocess.Popen([*command, str(file)], cwd=ROOT, env=os.environ | environment)
            )
            stack.callback(process.terminate)
        yield lambda: _lines(files)


def _lines(files: Sequence[Path]) -> list[str]:
    return [line for file in files if file.exists() for line in file.read_text().splitlines()]


def _lost(ids: Sequence[str], storm: Storm) -> list[str]:
    """The jobs that Redis does not know, once all others have finished."""
    deadline = time.monotonic() + PATIENCE
    while True:
        storm.replace_the_dead()  # a worker gives up a former primary some seconds later
        time.sleep(0.5)
        try:
            found = dict(zip(ids, read_statuses(ids), strict=True))
        except QueueUnavailableError:
            continue
        left = [status for status in found.values() if status and status['status'] != 'finished']
        if not left:
            return [job_id for job_id, status in found.items() if status is None]
        assert time.monotonic() < deadline, f'{len(left)} never finish, such as {left[0]}'


def main(file: Path) -> None:
    """Enqueue until SIGTERM. A job is accepted once its call, perhaps a repeated one, returns.

    A call that is not repeated was refused: Redis must not know its job.
    """
    is_over = False

    def end(*_: object) -> None:
        nonlocal is_over
        is_over = True

    signal.signal(signal.SIGTERM, end)
    number, in_doubt = 0, False
    with (
        file.open('w', buffering=1) as accepted,
        file.with_suffix(REFUSED).open('w', buffering=1) as refused,
    ):
        while not is_over:
            job_id = f'{file.name}-{number}'
            try:
                enqueue_background_job('tests.support.tasks.sleep', 0.001, job_id=job_id)
            except QueueUnavailableError as error:
                in_doubt = in_doubt or error.job_id is not None
                if not in_doubt:
                    refused.write(f'{job_id}\n')
                    number += 1
                time.sleep(0.05)
                continue
            accepted.write(f'{job_id}\n')
            number, in_doubt = number + 1, False
            time.sleep(0.005)


if __name__ == '__main__':
    main(Path(sys.argv[1]))

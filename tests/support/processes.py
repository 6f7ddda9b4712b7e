"""Worker processes, and waiting for what they do."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
JOB_WORKER = 'qdjobs.JobWorker'
# Short waits, so that no test waits for what a worker does now and then.
QUICK = {
    'JOB_IDLE_WAIT': '0.2',
    'JOB_DUE_INTERVAL': '0.05',
    'JOB_HEARTBEAT_INTERVAL': '0.5',
    'JOB_TIDY_INTERVAL': '0.5',
}

Worker = Callable[..., AbstractContextManager[subprocess.Popen[bytes]]]


def start_worker(
    log: Path, *options: str, cwd: Path | str = ROOT, **environment: str
) -> subprocess.Popen[bytes]:
    """`rq worker` in a session of its own, its output at the end of `log`."""
    command = [str(Path(sys.executable).with_name('rq')), 'worker', *options]
    with log.open('ab') as output:
        return subprocess.Popen(
            [*command, 'high', 'default', 'low'],
            cwd=cwd,
            env=os.environ | environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def run_example(module: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m module`, until it has ended."""
    return subprocess.run(
        [sys.executable, '-m', module],
        cwd=ROOT,
        env=os.environ | QUICK | environment,
        capture_output=True,
        text=True,
        timeout=900,  # on a machine that is busy
    )


def kill_group(pid: int) -> None:
    """Kill the leader of a session with all that it has started, and see it gone.

    RQ's own work horses have process groups of their own: killing the worker's alone lets them end
    their job, and write how it ended into the Redis of another test.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while (left := session_of(pid)) and time.monotonic() < deadline:
        for member in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
        time.sleep(0.01)


def session_of(leader: int) -> list[int]:
    """The processes of a session that still run; none where there is no /proc."""
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc') if Path('/proc').is_dir() else ()):
        try:
            rest = Path(f'/proc/{pid}/stat').read_text(errors='replace').rpartition(')')[2]
        except OSError:
            continue  # it has just ended
        state, _parent, _group, session = rest.split()[:4]
        if int(session) == leader and state != 'Z':
            found.append(int(pid))
    return found


def horse_of(worker_pid: int) -> int:
    """The process in which a worker runs its jobs."""
    children = Path(f'/proc/{worker_pid}/task/{worker_pid}/children')
    found: list[str] = []

    def look() -> list[str]:
        found[:] = children.read_text().split()
        return found

    eventually(look)
    return int(found[0])


def alive(pid: int) -> bool:
    try:
        return ') Z ' not in Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a process as Ctrl-Z does, and see that it stands still."""
    process.send_signal(signal.SIGSTOP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), 'it has ended'


def eventually(condition: Callable[[], object], timeout: float = 120) -> None:
    """Wait until the condition holds; fail if it never does."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f'it never came true in {timeout} s'
        time.sleep(0.02)

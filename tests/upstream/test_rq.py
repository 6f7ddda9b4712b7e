"""What RQ's own tests say of JobWorker."""

import pytest

from tests.upstream.rq_tests import main


@pytest.mark.slow
@pytest.mark.upstream
@pytest.mark.timeout(900)
def test_no_test_of_rq_fails_but_those_of_the_list() -> None:
    assert main() == 0

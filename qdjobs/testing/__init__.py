"""Test code that enqueues jobs, without a worker: in pytest, by its fixtures, and in unittest.

`recorded_jobs` records calls, `eager_jobs` runs each job at once; neither needs a Redis. `run_jobs`
runs the jobs that wait in a real one. docs/testing.md shows them.
"""

from qdjobs.testing.drain import run_jobs
from qdjobs.testing.eager import eager_jobs
from qdjobs.testing.recorded import RecordedJob, RecordedJobs, recorded_jobs

__all__ = ['RecordedJob', 'RecordedJobs', 'eager_jobs', 'recorded_jobs', 'run_jobs']

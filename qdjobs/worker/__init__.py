"""The worker that `rq worker` runs: it loses no job. docs/reliability.md says how.

JobWorker, in the parent process, and Performer, in the work horse, are RQ workers. These members of
RQ they override, and why:

- __init__: RQ's command line passes RQ's Job and serializer, which can run code from a record;
- job_class: the same;
- work: RQ's loop pops an id, starts its job several round trips later, and forks for each job;
- _set_connection: RQ's time-out is seven minutes, and redis-py repeats commands;
- kill_horse: RQ signals a process group, which before the fork is the worker's own;
- handle_payload: what one message raises would end the thread for commands;
- _pubsub_exception_handler: RQ's ends that thread after a time-out.

In the horse, where RQ's `perform_job` runs:

- death_penalty_class: a task can catch the exception of RQ's time-out;
- prepare_job_execution: RQ writes that the job has started, which claiming it has done;
- handle_execution_ended: RQ extends a heartbeat, but the parent renews the lease;
- handle_job_success, handle_job_failure, handle_job_retry: RQ writes the end in several steps,
  whether or not the job is still this worker's.
"""

import os

if not hasattr(os, 'fork'):  # before the imports below fail for lesser reasons
    raise ImportError(
        'qdjobs needs Linux or macOS, since its workers fork: on Windows, run Python inside WSL.'
    )

from qdjobs.worker.worker import JobWorker

__all__ = ['JobWorker']

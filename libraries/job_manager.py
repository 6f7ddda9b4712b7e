"""Background jobs: all names that the web code of this application imports for them.

    job = enqueue_background_job('workers.svg_tasks.generate_complex_svg',
                                 width=210, height=297, pattern_type='spiral',
                                 output_filename='spiral.svg', job_timeout='2m')
    get_job_status(job.id)['status']        # 'queued', 'started', 'finished', 'failed' …

A task is a public, typed function in `workers/`. Keywords that begin with `job_` are options of
the job, all others go to the task. Every function here raises QueueUnavailableError within two
seconds if Redis is away, and InvalidJobError or UnknownTaskError with nothing written.
"""

from qdjobs import (
    InvalidJobError,
    JobError,
    JobNotFoundError,
    Progress,
    QueueUnavailableError,
    Status,
    UnknownTaskError,
    cancel_job,
    count_waiting_jobs,
    delete_job,
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    get_job_statuses,
    list_jobs,
    list_jobs_page,
    retry_job,
    wait_for_job,
)

__all__ = [
    'InvalidJobError',
    'JobError',
    'JobNotFoundError',
    'Progress',
    'QueueUnavailableError',
    'Status',
    'UnknownTaskError',
    'cancel_job',
    'count_waiting_jobs',
    'delete_job',
    'enqueue_background_job',
    'enqueue_background_jobs',
    'get_job_status',
    'get_job_statuses',
    'list_jobs',
    'list_jobs_page',
    'retry_job',
    'wait_for_job',
]

"""Background jobs for Flask: enqueue a job, read its status, run it in a worker.

job = enqueue_background_job('shop.tasks.send_receipt', order=7, job_timeout='2m')
get_job_status(job.id)['status']        # 'queued', 'started', 'finished', 'failed' …
"""

from qdjobs.client.call import Call
from qdjobs.client.control import cancel_job, delete_job, retry_job
from qdjobs.client.enqueue import enqueue_background_job, enqueue_background_jobs
from qdjobs.client.hooks import Failure
from qdjobs.client.listing import count_waiting_jobs, list_jobs, list_jobs_page
from qdjobs.client.options import Options
from qdjobs.client.status import Attempt, Status, get_job_status, get_job_statuses, wait_for_job
from qdjobs.errors import (
    InvalidJobError,
    JobError,
    JobNotFoundError,
    PermanentJobError,
    QueueUnavailableError,
    UnknownTaskError,
)
from qdjobs.extension import JobQueue, init_job_queue
from qdjobs.progress import CurrentJob, Progress, current_job, report_progress, track
from qdjobs.sentinel import JobRedis
from qdjobs.worker import JobWorker

__version__ = '0.2.0'

__all__ = [
    'Attempt',
    'Call',
    'CurrentJob',
    'Failure',
    'InvalidJobError',
    'JobError',
    'JobNotFoundError',
    'JobQueue',
    'JobRedis',
    'JobWorker',
    'Options',
    'PermanentJobError',
    'Progress',
    'QueueUnavailableError',
    'Status',
    'UnknownTaskError',
    'cancel_job',
    'count_waiting_jobs',
    'current_job',
    'delete_job',
    'enqueue_background_job',
    'enqueue_background_jobs',
    'get_job_status',
    'get_job_statuses',
    'init_job_queue',
    'list_jobs',
    'list_jobs_page',
    'report_progress',
    'retry_job',
    'track',
    'wait_for_job',
]

"""Background jobs: all names that the web code of this application imports for them.

    job = enqueue_background_job('workers.svg_tasks.generate_complex_svg',
                                 width=210, height=297, pattern_type='spiral',
                                 output_filename='spiral.svg', job_timeout='2m')
    get_job_status(job.id)['status']        # 'queued', 'started', 'finished', 'failed' …

A task is a public, typed function in `workers/`. Keywords that begin with `job_` are options of
the job, all others go to the task. Every function here raises QueueUnavailableError within two
seconds if Redis is away, and InvalidJobError or UnknownTaskError with nothing written.
"""

from qdjobs import InvalidJobError as InvalidJobError
from qdjobs import JobError as JobError
from qdjobs import JobNotFoundError as JobNotFoundError
from qdjobs import Progress as Progress
from qdjobs import QueueUnavailableError as QueueUnavailableError
from qdjobs import Status as Status
from qdjobs import UnknownTaskError as UnknownTaskError
from qdjobs import cancel_job as cancel_job
from qdjobs import count_waiting_jobs as count_waiting_jobs
from qdjobs import delete_job as delete_job
from qdjobs import enqueue_background_job as enqueue_background_job
from qdjobs import enqueue_background_jobs as enqueue_background_jobs
from qdjobs import get_job_status as get_job_status
from qdjobs import get_job_statuses as get_job_statuses
from qdjobs import list_jobs as list_jobs
from qdjobs import list_jobs_page as list_jobs_page
from qdjobs import retry_job as retry_job
from qdjobs import wait_for_job as wait_for_job

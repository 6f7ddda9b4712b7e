"""The names under which clients of the HTTP API enqueue the tasks in `workers`."""

from contextlib import suppress

from qdjobs import JobQueue, Options, UnknownTaskError

_MAIL: Options = {'job_max_retries': 3}  # the mail server may be unreachable for a while

NAMES: dict[str, tuple[str, Options]] = {
    'send_email': ('workers.email_tasks.send_email', _MAIL),
    'send_notification': ('workers.email_tasks.send_notification', _MAIL),
    'email_notification': ('workers.email_tasks.email_notification', _MAIL),
    'data_processing': ('workers.data_tasks.data_processing', {}),
    'process_file': ('workers.data_tasks.process_file', {}),
    'process_batch': ('workers.file_tasks.process_batch', {}),
    'process_image': ('workers.image_tasks.process_image', {}),
    'flaky_api_call': ('workers.flaky_tasks.flaky_api_call', {'job_retry_delay': '1s'}),
    'generate_report': ('workers.report_tasks.generate_report', {}),
    'generate_pdf': ('workers.report_tasks.generate_pdf', {}),
    'generate_complex_svg': ('workers.svg_tasks.generate_complex_svg', {}),
    'generate_postcard_svg': ('workers.svg_tasks.generate_postcard_svg', {}),
    'batch_generate_svgs': ('workers.svg_tasks.batch_generate_svgs', {}),
}


def name_tasks(queue: JobQueue) -> None:
    """Add the named tasks to `queue`, and the periodic one.

    Skips those whose module JOB_TASK_MODULES does not list.
    """
    for name, (path, options) in NAMES.items():
        with suppress(UnknownTaskError):
            queue.add(name, path, **options)
    with suppress(UnknownTaskError):
        queue.add('clean_outputs', 'workers.clean_tasks.clean_outputs', every='1h')

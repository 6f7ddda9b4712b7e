"""Make the JSON data that rq-dashboard's scripts expect."""

from math import ceil
from typing import Any

from flask import url_for
from werkzeug.exceptions import NotFound

from qdjobs.monitoring.registries import (
    SHOWN,
    count_jobs,
    describe_job,
    describe_jobs,
    list_queues,
    list_workers,
    read_registry,
)

MAX_PER_PAGE = 200  # the largest size that the page offers


def queues_data() -> list[dict[str, Any]]:
    """Return a row for each queue, with the counts and the URLs of its registries."""
    names = list_queues()
    rows = []
    for name, counts in zip(names, count_jobs(names), strict=True):
        row: dict[str, Any] = {'name': name, 'count': counts['queued']}
        for registry in SHOWN:
            row[f'{registry}_url'] = _jobs_url(name, registry, 8, 'asc', 1)
            row[f'{registry}_job_registry_count'] = counts[registry]
        rows.append(row)
    return rows


def workers_data() -> list[dict[str, Any]]:
    """Return a row for each worker, with the job that it runs."""
    workers = list_workers()
    running = [worker['job'] for worker in workers if worker['job']]
    jobs = {job['id']: _job_row(job) for job in describe_jobs(running)}
    return [worker | {'current_job': jobs.get(worker['job'], 'idle')} for worker in workers]


def jobs_data(queue: str, registry: str, per_page: str, order: str, page: str) -> dict[str, Any]:
    """Return a page of a registry, and links to the others. Raises NotFound."""
    size, current, pages = find_page(queue, registry, per_page, order, page)
    job_ids = read_registry(queue, registry, (current - 1) * size, size, order == 'dsc')

    def link(number: int) -> dict[str, Any]:
        return {'number': number, 'url': _jobs_url(queue, registry, size, order, number)}

    first = max(1, min(current - 5, pages - 9))  # ten links, the current page in the middle
    pagination = {
        'current_page': current,
        'num_pages': pages,
        'pages_in_window': [link(number) for number in range(first, min(first + 10, pages + 1))],
        'first_page': link(1),
        'last_page': link(pages),
    }
    if current > 1:
        pagination['prev_page'] = link(current - 1)
    if current < pages:
        pagination['next_page'] = link(current + 1)
    rows = [_job_row(job) for job in describe_jobs(job_ids)]
    return {'name': queue, 'registry_name': registry, 'jobs': rows, 'pagination': pagination}


def job_data(job_id: str) -> dict[str, Any]:
    """Return one job in full. Raises JobNotFoundError."""
    job = describe_job(job_id)
    dependencies = job.pop('depends_on')
    job |= _moments(job) | {
        'origin': job['queue'],
        'exc_info': job.pop('traceback'),
        'metadata': job.pop('meta'),
    }
    if dependencies:
        job['depends_on'] = list(dependencies)
        job['depends_on_status'] = [
            'active' if exists else 'expired' for exists in dependencies.values()
        ]
    return job


def find_page(
    queue: str, registry: str, per_page: str, order: str, page: str
) -> tuple[int, int, int]:
    """Return (jobs per page, number of the page, number of pages). Raises NotFound."""
    require_registry(queue, registry)
    size, number = _number(per_page), _number(page)
    pages = max(1, ceil(count_jobs([queue])[0][registry] / size))
    if order not in ('asc', 'dsc') or size > MAX_PER_PAGE or number > pages:
        raise NotFound('There is no such page.')
    return size, number, pages


def require_registry(queue: str, registry: str) -> None:
    """Raise NotFound unless the queue and the registry exist."""
    if registry not in SHOWN or queue not in list_queues():
        raise NotFound('There is no such queue or registry.')


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise NotFound('There is no such page.')
    return int(text)


def _job_row(job: dict[str, Any]) -> dict[str, Any]:
    """Return a job of a list; its `exc_info` is one line, its own page shows the traceback."""
    shown = {'id': job['id'], 'job_id': job['id'], 'description': job['description']}
    return shown | _moments(job) | {'call_string': job['description'], 'exc_info': job.get('error')}


def _moments(job: dict[str, Any]) -> dict[str, str | None]:
    """Format a job's times with `+00:00`: the scripts would take `Z` for local time."""
    names = ('created_at', 'enqueued_at', 'started_at', 'ended_at')
    return {name: job[name].isoformat() if job.get(name) else None for name in names}


def _jobs_url(queue: str, registry: str, per_page: int, order: str, page: int) -> str:
    return url_for(
        '.jobs_overview',
        queue_name=queue,
        registry_name=registry,
        per_page=per_page,
        order=order,
        page=page,
    )

"""The pages of the dashboard, and the changes that their buttons make."""

from collections.abc import Callable
from typing import Any

from flask import Response, redirect, request, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as Redirection

from qdjobs.client.control import cancel_job, delete_job, retry_job
from qdjobs.client.listing import MAX_SCANNED
from qdjobs.client.states import ENDED
from qdjobs.errors import InvalidJobError, JobNotFoundError, short_repr
from qdjobs.monitoring.registries import (
    SHOWN,
    count_jobs,
    describe_job,
    describe_jobs,
    list_queues,
    list_workers,
    name_workers,
    read_registry,
)
from qdjobs.web.body import json_answer
from qdjobs.web.dashboard.blueprint import dashboard, render, wants_page
from qdjobs.web.dashboard.paging import ORDERS, SIZES, read_paging

__all__ = ['dashboard']  # with all of its views

# What the page says after a change. Its address has the key only: it is not to show any text.
DONE = {
    'requeued': 'Requeued',
    'canceled': 'Canceled',
    'stopping': 'Its worker stops it',
    'deleted': 'Deleted',
    'emptied': 'Canceled, stopped or deleted',
    **dict.fromkeys(('finished', 'failed', 'stopped'), 'Had ended before'),
}


# Pages


@dashboard.get('/', endpoint='home')
def show_queues() -> str:
    names = list_queues()
    return _page('queues', queues=dict(zip(names, count_jobs(names), strict=True)))


@dashboard.get('/workers')
def show_workers() -> str:
    workers = list_workers()
    running = describe_jobs([worker['job'] for worker in workers if worker['job']])
    return _page('workers', workers=workers, jobs={job['id']: job for job in running})


@dashboard.get('/queue/<path:queue>/<registry>')
def show_registry(queue: str, registry: str) -> str:
    _require_registry(queue, registry)
    counts = count_jobs([queue])[0]
    paging = read_paging(request.args, counts[registry])
    is_newest_first = paging.order == ORDERS[0]
    job_ids = read_registry(queue, registry, paging.start, paging.size, is_newest_first)
    return _page(
        'registry',
        queue=queue,
        registry=registry,
        counts=counts,
        paging=paging,
        sizes=SIZES,
        jobs=describe_jobs(job_ids),
    )


@dashboard.get('/job/<job_id>')
def show_job(job_id: str) -> str:
    job = describe_job(job_id)
    names = {job['worker'], *(attempt['worker'] for attempt in job['attempts'])}
    return _page('job', job=job, workers=name_workers(names - {''}))


@dashboard.get('/job')
def find_job() -> Redirection:
    job_id = request.args.get('id', '').strip()
    return redirect(url_for('.show_job', job_id=job_id) if job_id else url_for('.home'))


def _require_registry(queue: str, registry: str) -> None:
    """Raise NotFound unless the queue and the registry exist."""
    if registry not in SHOWN:
        raise NotFound(
            f'There is no registry {short_repr(registry)}: it is one of {", ".join(SHOWN)}.'
        )
    if queue not in list_queues():
        raise NotFound(f'There is no queue {short_repr(queue)}.')


def _page(name: str, **values: Any) -> str:
    done, count = DONE.get(request.args.get('done', '')), request.args.get('count', '')
    is_count = count.isdecimal() and len(count) < 9
    note = f'{done}: {count} jobs.' if done and is_count else f'{done}.' if done else ''
    return render(name, **values, note=note, registries=SHOWN, ended=ENDED)


# The addresses that rq-dashboard has for the same, such as those in bookmarks


@dashboard.get('/0/view/<name>')
def forward_page(name: str) -> Redirection:
    return redirect(url_for('.show_workers' if name == 'workers' else '.home'))


@dashboard.get('/0/view/job/<job_id>')
def forward_job(job_id: str) -> Redirection:
    return redirect(url_for('.show_job', job_id=job_id))


@dashboard.get('/0/view/jobs/<path:queue>/<registry>/<size>/<order>/<page>')
def forward_registry(queue: str, registry: str, **_: str) -> Redirection:
    return redirect(url_for('.show_registry', queue=queue, registry=registry))


# Changes


@dashboard.post('/job/<job_id>/requeue')
def requeue(job_id: str) -> Redirection:
    retry_job(job_id)
    return _answer('requeued')


@dashboard.post('/job/<job_id>/cancel')
def cancel(job_id: str) -> Redirection:
    return _answer(cancel_job(job_id))


@dashboard.post('/job/<job_id>/delete')
def delete(job_id: str) -> Redirection:
    return _answer(delete_job(job_id))


@dashboard.post('/requeue/<path:queue>')
def requeue_all(queue: str) -> Redirection:
    return _answer('requeued', _change_each(queue, 'failed', retry_job))


@dashboard.post('/queue/<path:queue>/<registry>/empty')
def empty(queue: str, registry: str) -> Redirection:
    return _answer('emptied', _change_each(queue, registry, delete_job))


def _change_each(queue: str, registry: str, change: Callable[[str], object]) -> int:
    """Change each job in a step of its own, so that an interrupted request loses nothing."""
    _require_registry(queue, registry)
    count = 0
    for job_id in read_registry(queue, registry, 0, MAX_SCANNED):
        try:
            change(job_id)
            count += 1
        except (JobNotFoundError, InvalidJobError):
            continue  # deleted or changed meanwhile
    return count


def _answer(done: str, count: int | None = None) -> Redirection:
    """Lead a browser back to the page that its form names; tell a script what was done."""
    counted = {} if count is None else {'count': count}
    if not wants_page():
        answer: Response = json_answer({'status': 'OK', **counted})
        return answer
    home, back = url_for('.home'), request.form.get('back', '')
    page, _, query = (back if back.startswith(home) else home).partition('?')
    kept = [part for part in query.split('&') if part.partition('=')[0] not in ('done', 'count')]
    said = [f'{name}={value}' for name, value in {'done': done, **counted}.items()]
    return redirect(f'{page}?{"&".join([*filter(None, kept), *said])}', 303)

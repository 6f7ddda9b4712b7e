"""The pages of the dashboard, and the changes that their buttons make."""

from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Response, redirect, request, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as Redirection

from qdjobs.client.control import (
    cancel_job,
    cancel_job_in,
    cancel_waiting_job,
    delete_ended_job,
    retry_job,
    retry_job_in,
)
from qdjobs.client.listing import MAX_SCANNED, registry_key
from qdjobs.client.options import is_job_id
from qdjobs.client.states import ENDED
from qdjobs.errors import InvalidJobError, JobNotFoundError, short_repr
from qdjobs.monitoring.registries import (
    MAX_SORTED,
    SHOWN,
    SORTED_BY,
    count_jobs,
    describe_job,
    describe_jobs,
    list_queues,
    list_workers,
    name_workers,
    read_registry,
    read_sorted,
)
from qdjobs.web.body import json_answer
from qdjobs.web.dashboard.blueprint import SAID, dashboard, render, wants_page
from qdjobs.web.dashboard.paging import ORDERS, PARTS, SIZES, read_paging

__all__ = ['dashboard']  # with all of its views

# What the page says after a change. Its address has the key only: it is not to show any text.
NOTES = {
    'requeued': 'Requeued',
    'canceled': 'Canceled',
    'stopping': 'Its worker stops it',
    'deleted': 'Deleted',
    'running': 'It runs or waits again, or other jobs wait for it: nothing was changed',
    'started': 'It has started since: nothing was changed',
    **dict.fromkeys(('finished', 'failed', 'stopped'), 'Had ended before'),
}
# The same of all jobs of a registry, with what a button calls it.
NOTES_OF_ALL = {
    'requeued': ('Requeue', 'Requeued'),
    'canceled': ('Cancel', 'Canceled'),
    'stopping': ('Stop', 'Stopping'),
    'deleted': ('Delete', 'Deleted'),
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
    is_newest_first, emptying = paging.order == ORDERS[0], _emptying(registry)
    job_ids = read_sorted(queue, registry, paging.count, paging.start, paging.size, is_newest_first)
    return _page(
        'registry',
        queue=queue,
        registry=registry,
        counts=counts,
        paging=paging,
        sizes=SIZES,
        emptying=emptying,
        emptying_verb=NOTES_OF_ALL[emptying][0],
        question=_question,
        is_sorted_by_page=registry in SORTED_BY and paging.count > MAX_SORTED,
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
    if not job_id:
        return redirect(url_for('.home'))
    if not is_job_id(job_id):  # it may be no part of an address
        raise JobNotFoundError([job_id[:200]])
    return redirect(url_for('.show_job', job_id=job_id))


@dashboard.get('/<path:address>')
def find_nothing(address: str) -> str:
    """Answer addresses that do not exist here, and not as the application does elsewhere."""
    raise NotFound('There is no such page.')


def _require_registry(queue: str, registry: str) -> None:
    """Raise NotFound unless the queue and the registry exist."""
    if registry not in SHOWN:
        raise NotFound(
            f'There is no registry {short_repr(registry)}: it is one of {", ".join(SHOWN)}.'
        )
    if queue not in list_queues():
        raise NotFound(f'There is no queue {short_repr(queue)}.')


def _page(name: str, **values: Any) -> str:
    note = _note()
    refreshed = _address_without_note() if note else ''
    return render(name, **values, note=note, refreshed=refreshed, registries=SHOWN, ended=ENDED)


def _address_without_note() -> str:
    kept: dict[str, Any] = {name: request.args[name] for name in PARTS if name in request.args}
    return url_for(request.endpoint or '.home', **(request.view_args or {}), **kept)


def _note() -> str:
    done, *numbers = (request.args.get(name, '') for name in SAID)
    if done not in NOTES_OF_ALL or not all(n.isdecimal() and len(n) < 9 for n in numbers):
        return f'{NOTES[done]}.' if done in NOTES else ''
    count, of = map(int, numbers)
    verb = NOTES_OF_ALL[done][1]
    if count >= of:
        return f'{verb} {_jobs(count)}.'
    rest = 'press again for the rest' if of > MAX_SCANNED else 'the others have changed meanwhile'
    return f'{verb} {count:,} of {_jobs(of)}: {rest}.'


def _question(done: str, count: int) -> str:
    verb = NOTES_OF_ALL[done][0]
    if count > MAX_SCANNED:
        return f'{verb} {MAX_SCANNED:,} of {_jobs(count)}?'
    return f'{verb} all {_jobs(count)}?'


def _jobs(count: int) -> str:
    return f'{count:,} job{"" if count == 1 else "s"}'


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
    if not wants_page():
        return _answer(cancel_job(job_id))
    state = cancel_waiting_job(job_id)  # as it was when the button was shown
    return _show(job_id, state) if state == 'started' else _answer(state)


@dashboard.post('/job/<job_id>/stop')
def stop(job_id: str) -> Redirection:
    return _answer(cancel_job(job_id))


@dashboard.post('/job/<job_id>/delete')
def delete(job_id: str) -> Redirection:
    try:
        delete_ended_job(job_id)
    except InvalidJobError:
        if not wants_page():
            raise
        return _show(job_id, 'running')
    return _answer('deleted')


def _show(job_id: str, done: str) -> Redirection:
    return redirect(url_for('.show_job', job_id=job_id, done=done), 303)


@dashboard.post('/requeue/<path:queue>')
def requeue_all(queue: str) -> Redirection | str:
    return _change_all(queue, 'failed', 'requeued', retry_job_in)


@dashboard.post('/queue/<path:queue>/<registry>/empty')
def empty(queue: str, registry: str) -> Redirection | str:
    done = _emptying(registry)
    return _change_all(queue, registry, done, _delete_in if done == 'deleted' else cancel_job_in)


def _emptying(registry: str) -> str:
    """Return what empties a registry, one of NOTES_OF_ALL."""
    if registry in ENDED:
        return 'deleted'
    return 'stopping' if registry == 'started' else 'canceled'


def _delete_in(place: str, job_id: str) -> None:
    delete_ended_job(job_id, place)


def _change_all(
    queue: str, registry: str, done: str, change: Callable[[str, str], object]
) -> Redirection | str:
    """Change all jobs of a registry, once a browser has confirmed it."""
    _require_registry(queue, registry)
    total = count_jobs([queue])[0][registry]
    if wants_page() and 'confirmed' not in request.form:  # the script asks, and adds it
        back = _back() or url_for('.show_registry', queue=queue, registry=registry)
        question = _question(done, total)
        return _page(
            'confirm', queue=queue, registry=registry, question=question, back=back, done=done
        )
    count = _change_each(queue, registry, partial(change, registry_key(registry, queue)))
    return _answer(done, count=count, of=max(count, total))


def _change_each(queue: str, registry: str, change: Callable[[str], object]) -> int:
    """Change each job in a step of its own, so that an interrupted request loses nothing."""
    count = 0
    for job_id in read_registry(queue, registry, 0, MAX_SCANNED):
        try:
            change(job_id)
            count += 1
        except (JobNotFoundError, InvalidJobError):
            continue  # deleted or changed meanwhile
    return count


def _answer(done: str, **counted: int) -> Redirection:
    """Lead a browser back to the page that its form names; tell a script what was done."""
    if not wants_page():
        answer: Response = json_answer({'status': 'OK', **counted})
        return answer
    page, _, query = (_back() or url_for('.home')).partition('?')
    kept = [part for part in query.split('&') if part.partition('=')[0] not in SAID]
    said = [f'{name}={value}' for name, value in {'done': done, **counted}.items()]
    return redirect(f'{page}?{"&".join([*filter(None, kept), *said])}', 303)


def _back() -> str:
    """Return the address that a form names, if it is of the dashboard."""
    back = request.form.get('back', '')
    return back if back.startswith(url_for('.home')) else ''


# The same addresses by GET, as when the answer to a button is loaded again


@dashboard.get('/job/<job_id>/<any(requeue, cancel, stop, delete):button>')
def forward_button(job_id: str, button: str) -> Redirection:
    return redirect(url_for('.show_job', job_id=job_id))


@dashboard.get('/requeue/<path:queue>')
def forward_requeue_all(queue: str) -> Redirection:
    return redirect(url_for('.show_registry', queue=queue, registry='failed'))


@dashboard.get('/queue/<path:queue>/<registry>/empty')
def forward_empty(queue: str, registry: str) -> Redirection:
    return redirect(url_for('.show_registry', queue=queue, registry=registry))

"""A call becomes one frozen value, and is checked once on its way."""

import inspect
import json
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import FrozenInstanceError
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, get_overloads

import pytest
import rq.job
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

import qdjobs
from qdjobs import JobQueue, enqueue_background_job, enqueue_background_jobs, list_jobs
from qdjobs.client import enqueue
from qdjobs.client.call import call_from_json, call_from_python, call_from_text
from qdjobs.client.hints import HintCheck
from qdjobs.client.options import Options, parse_options
from qdjobs.client.payload import check_plain
from qdjobs.client.signature import Enqueue
from qdjobs.client.tasks import check_call, resolve_task
from qdjobs.config import environment_config
from qdjobs.errors import InvalidJobError, UnknownTaskError
from qdjobs.outbox import JobOutbox
from tests.support.modules import use_modules
from tests.support.tasks import convert
from workers.svg_tasks import generate_complex_svg

ADD = 'tests.support.tasks.add'
CONVERT = 'tests.support.tasks.convert'
ECHO = 'tests.support.tasks.echo'
SVG = 'workers.svg_tasks.generate_complex_svg'
ARGUMENTS: dict[str, Any] = {
    'width': 210,
    'height': 297,
    'pattern_type': 'spiral',
    'output_filename': 'spiral.svg',
}
PACKAGE = str(Path(qdjobs.__file__).parent)
MOST_CROSSINGS = 40


@contextmanager
def watching(note: Callable[[FrameType], None]) -> Iterator[None]:
    """Pass the frame of every Python call of this thread."""
    sys.setprofile(lambda frame, event, _: note(frame) if event == 'call' else None)
    try:
        yield
    finally:
        sys.setprofile(None)


def crossings_of(action: Callable[[], Any]) -> Counter[tuple[str, str]]:
    """The calls from one file of the package into another, also through a library."""
    found: Counter[tuple[str, str]] = Counter()

    def note(frame: FrameType) -> None:
        callee, caller = frame.f_code.co_filename, frame.f_back
        if not callee.startswith(PACKAGE):
            return
        while caller is not None and not caller.f_code.co_filename.startswith(PACKAGE):
            caller = caller.f_back
        if caller is not None and caller.f_code.co_filename != callee:
            found[caller.f_code.co_filename, callee] += 1

    with watching(note):
        action()
    return found


def calls_of(action: Callable[[], Any], *functions: Callable[..., Any]) -> list[int]:
    """How often an action calls each function."""
    counts: Counter[Any] = Counter()

    def note(frame: FrameType) -> None:
        counts[frame.f_code] += 1

    with watching(note):
        action()
    return [counts[function.__code__] for function in functions]


@pytest.fixture
def post(settings: pytest.MonkeyPatch) -> Callable[[], Any]:
    """POST /api/jobs with four arguments."""
    settings.setenv('JOBS_API_TOKEN', 'secret')
    environment_config.cache_clear()
    app = Flask('an-app')
    JobQueue(app).add('svg', SVG, job_queue='high')
    client = app.test_client()

    def post_job() -> None:
        answer = client.post(
            '/api/jobs',
            json={'task': 'svg', 'params': ARGUMENTS},
            headers={'Authorization': 'Bearer secret'},
        )
        assert answer.status_code == 201, answer.text

    post_job()  # the first imports the task
    return post_job


def test_a_posted_job_crosses_few_files(post: Callable[[], Any]) -> None:
    found = crossings_of(post)
    assert found.total() <= MOST_CROSSINGS, found
    assert {job['queue'] for job in list_jobs('queued')} == {'high'}


def test_the_control_every_crossing_is_counted(post: Callable[[], Any]) -> None:
    once = crossings_of(post).total()
    assert once > 20
    assert crossings_of(lambda: (post(), post())).total() == 2 * once
    more = crossings_of(lambda: (post(), parse_options({}, environment_config()))).total()
    assert more > once


CHECKS = (resolve_task, parse_options, check_plain, HintCheck.problem)
ONCE = [1, 1, len(ARGUMENTS), len(ARGUMENTS)]
TEXTS = {name: str(value) for name, value in ARGUMENTS.items()}


def test_a_posted_call_is_checked_once(post: Callable[[], Any]) -> None:
    assert calls_of(post, *CHECKS) == ONCE


@pytest.mark.parametrize(
    'way',
    [
        lambda: enqueue_background_job(SVG, **ARGUMENTS),
        lambda: enqueue_background_job(SVG, *ARGUMENTS.values(), job_queue='low'),
        lambda: enqueue_background_job(generate_complex_svg, **ARGUMENTS),
        lambda: enqueue_background_jobs(SVG, [ARGUMENTS]),
        lambda: call_from_python(SVG, (), ARGUMENTS, {}),
        lambda: call_from_json(SVG, ARGUMENTS, {}),
        lambda: call_from_text(SVG, TEXTS, {}),
    ],
)
def test_each_way_resolves_once_and_checks_each_argument_once(way: Callable[[], Any]) -> None:
    assert calls_of(way, *CHECKS) == ONCE


def test_a_batch_resolves_its_task_and_parses_its_options_once() -> None:
    def enqueue_batch() -> None:
        enqueue_background_jobs(SVG, [ARGUMENTS] * 10)

    assert calls_of(enqueue_batch, *CHECKS) == [1, 1, 40, 40]


def test_the_control_a_second_check_is_counted() -> None:
    def twice() -> None:
        call = call_from_python(SVG, (), ARGUMENTS, {})
        call.task.pack(call.args, call.kwargs)

    assert calls_of(twice, *CHECKS) == [1, 1, 8, 8]


def test_the_three_ways_make_the_same_call() -> None:
    options: dict[str, Any] = {'job_id': 'mine', 'job_max_retries': 2}
    call = call_from_python(SVG, (), ARGUMENTS, options)
    assert call.id == 'mine'
    assert call == call_from_json(SVG, ARGUMENTS, options) == call_from_text(SVG, TEXTS, options)


def test_a_call_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        call_from_python(ADD, (1,), {}, {}).id = 'other'  # type: ignore[misc]


def test_a_payload_is_compressed_once(settings: pytest.MonkeyPatch) -> None:
    sizes = []

    def compress(data: bytes) -> bytes:
        sizes.append(len(data))
        return zlib.compress(data)

    for module in (enqueue, rq.job):
        settings.setattr(module, 'zlib', SimpleNamespace(compress=compress))
    jobs = enqueue_background_jobs(ECHO, [{'text': 'x' * 10_000}] * 3)
    assert sum(size > 100 for size in sizes) == 3
    assert [len(job.data) for job in jobs] == [size for size in sizes if size > 100]
    assert jobs[1].kwargs == {'text': 'x' * 10_000}


# What JSON and text become passes the check of the worker

CONVERTED = inspect.signature(convert).parameters
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 2**70)
    | st.floats(allow_nan=False)
    | st.sampled_from(['', 'a', 'aGk=', '1', '1.50', '2030-01-02', '2030-01-02T03:04:05+05:30'])
    | st.sampled_from(['PT5M', '12345678123456781234567812345678', 'x', '03:04', 'null', '[1]'])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(['x', 'y', 'day', '1', '2']), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.sampled_from(sorted(CONVERTED)), VALUES)
def test_a_converted_value_is_as_good_as_one_from_python(name: str, value: Any) -> None:
    ways = (call_from_json, {name: value}), (call_from_text, {name: json.dumps(value)})
    for read, given_value in ways:
        try:
            call = read(CONVERT, given_value, {})
        except InvalidJobError:
            continue
        assert check_call(CONVERT, call.args, call.kwargs)[0] is convert


# Options


@pytest.mark.parametrize(
    'function',
    [enqueue_background_job, enqueue_background_jobs, JobQueue.enqueue, JobOutbox.enqueue],
)
def test_the_options_are_in_the_signatures(function: Callable[..., Any]) -> None:
    parameters = inspect.signature(function).parameters
    named = {name for name in parameters if name.startswith('job_')}
    assert named == Options.__optional_keys__
    assert all(parameters[name].default is None for name in named)


def test_a_type_checker_knows_each_option_beside_a_path_and_beside_a_function() -> None:
    # A protocol has no function with this name, by which Python knows the overloads.
    named: Any = SimpleNamespace(__module__=Enqueue.__module__, __qualname__='Enqueue.__call__')
    path, *functions, _ = map(inspect.signature, get_overloads(named))
    of_path = {name: path.parameters[name] for name in Options.__optional_keys__}
    of_functions = {
        name: parameter
        for overload in functions
        for name, parameter in overload.parameters.items()
        if name in Options.__optional_keys__
    }
    assert len(functions) == len(of_functions)
    hints = {name: parameter.annotation for name, parameter in of_functions.items()}
    assert hints == {name: parameter.annotation for name, parameter in of_path.items()}
    assert {parameter.default for parameter in of_functions.values()} == {inspect.Parameter.empty}
    assert {parameter.default for parameter in of_path.values()} == {None}


def test_only_keywords_that_begin_with_job_are_options() -> None:
    arguments: dict[str, Any] = {
        'timeout': 1,
        'queue': 'x',
        'jobs': 2,
        'job': 3,
        'Job_id': 4,
        '_job_id': 5,
    }
    assert enqueue_background_job(ECHO, **arguments, job_timeout=6).kwargs == arguments


@pytest.mark.parametrize('name', ['job_', 'job_no_such', 'job_Queue'])
def test_an_unknown_option_is_no_argument(connection: Redis, name: str) -> None:
    unknown: Mapping[str, Any] = {name: 1}
    queue = JobQueue(Flask('an-app'))
    queue.add('echo', ECHO)
    for way in (
        lambda: enqueue_background_job(ECHO, **unknown),
        lambda: enqueue_background_jobs(ECHO, [{}], **unknown),
        lambda: queue.enqueue('echo', **unknown),
        lambda: queue.using(**unknown),
    ):
        with pytest.raises(InvalidJobError, match=rf'^{name} is no option of a job[;:]'):
            way()
    assert connection.dbsize() == 0


def test_an_option_that_is_none_is_not_given() -> None:
    queue = JobQueue(Flask('an-app'))
    queue.add('add', ADD, job_queue='high')
    job = enqueue_background_job(ADD, 1, job_timeout=None, job_id=None, job_at=None)
    assert (job.timeout, job.origin) == (300, 'default')
    queue.enqueue('add', 1, job_queue=None)
    assert sorted(job['queue'] for job in list_jobs()) == ['default', 'high']


# Paths that are not whole


HEAL = "'{}' is only the end of a path: write 'clinic.cats.heal'."
FEED = 'is the end of 2 tasks: did you mean clinic.cats.feed or clinic.wild.lions.feed?'
NURSE = "is a name, which queue.enqueue takes. The path of the task is 'clinic.cats.heal'."


@pytest.mark.parametrize(
    ('path', 'says'),
    [
        ('heal', HEAL),
        ('cats.heal', HEAL),
        ('feed', FEED),
        ('clinic.cat.heal', "no module 'clinic.cat'. Did you mean clinic.cats.heal?"),
        ('heall', 'JOB_TASK_MODULES. Did you mean clinic.cats.heal?'),
        ('os.system', 'define the task there, or add its module to JOB_TASK_MODULES.'),
        ('clinic.broken.heal', 'clinic.broken failed: ZeroDivisionError: division by zero.'),
        ('nurse', NURSE),
    ],
)
def test_a_path_that_is_not_whole_is_refused_with_the_whole_one(
    settings: pytest.MonkeyPatch, tmp_path: Path, path: str, says: str
) -> None:
    cats = 'def heal(): ...\nasync def feed(): ...\ndef _hide(): ...'
    wild = {'wild__in____init__': '', 'wild__in__lions': 'def feed(): ...'}
    use_modules(settings, tmp_path, cats=cats, broken='1 / 0', **wild)
    app = Flask('an-app')
    JobQueue(app).add('nurse', 'clinic.cats.heal')
    ways: tuple[Callable[[], object], ...] = (
        lambda: enqueue_background_job(path),
        lambda: enqueue_background_jobs(path, [{}]),
    )
    for way in ways:
        with app.app_context(), pytest.raises(UnknownTaskError) as refusal:
            way()
        assert str(refusal.value).endswith(says.format(path))
    assert not {'clinic.cats', 'clinic.wild', 'clinic.wild.lions'} & set(sys.modules)


def test_what_may_be_meant_is_neither_the_same_again_nor_looked_for_without_end(
    settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / 'looped'
    package.mkdir()
    for name in ('one', 'two'):
        (package / name).symlink_to('.')
    (package / '__init__.py').write_text(
        'import functools\ndef heal(): ...\n@functools.cache\ndef feed(): ...'
    )
    settings.syspath_prepend(tmp_path)
    settings.setenv('JOB_TASK_MODULES', 'looped')
    environment_config.cache_clear()
    with pytest.raises(UnknownTaskError, match=r"write 'looped\.heal'"):
        enqueue_background_job('heal')
    with pytest.raises(UnknownTaskError, match='names no public function') as refusal:
        enqueue_background_job('looped.feed')
    assert 'Did you mean' not in str(refusal.value)


# Arguments by name only


@pytest.mark.parametrize('parameters', ['a, /', 'a, /, **others'])
def test_json_cannot_name_an_argument_that_has_only_a_place(
    settings: pytest.MonkeyPatch, tmp_path: Path, parameters: str
) -> None:
    name = f'placed_{abs(hash(tmp_path))}'
    (tmp_path / f'{name}.py').write_text(f'def f({parameters}): ...\n')
    settings.syspath_prepend(tmp_path)
    settings.setenv('JOB_TASK_MODULES', name)
    environment_config.cache_clear()
    for params in ({}, {'a': 1}):
        with pytest.raises(InvalidJobError, match=f"{name}.f: argument 'a' is missing") as refusal:
            call_from_json(f'{name}.f', params, {})
        assert refusal.value.argument == 'a'
    with pytest.raises(InvalidJobError, match=r"'a' parameter is positional only|missing a"):
        call_from_text(f'{name}.f', {'a': '1'}, {})

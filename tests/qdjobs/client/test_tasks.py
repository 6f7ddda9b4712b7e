"""Which paths are tasks, and which arguments they take."""

import importlib
import sys
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from markupsafe import Markup
from werkzeug.datastructures import ImmutableMultiDict

from qdjobs import (
    JobQueue,
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_statuses,
    list_jobs,
)
from qdjobs.client.call import (
    call_from_json,
    call_from_python,
    call_from_text,
    calls_from_python,
)
from qdjobs.client.payload import ARGUMENT_DEPTH, PlainSerializer
from qdjobs.client.tasks import Task, check_call, resolve_task
from qdjobs.config import environment_config
from qdjobs.errors import InvalidJobError, UnfitHereError, UnknownHereError, UnknownTaskError
from tests.support.tasks import add

NOW = datetime(2030, 1, 2, tzinfo=UTC)
HINT = (
    '(If app.config has it there: it counts from JobQueue(app) on, and in the context of that '
    'application.)'
)
HUGE = 10**10000  # more digits than Python likes to write

HEAD = """
import asyncio
import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NotRequired, Optional, TypedDict, Union
from uuid import UUID

from msgspec import Meta
"""

Write = Callable[..., str]


@pytest.fixture
def write(settings: pytest.MonkeyPatch, tmp_path: Path) -> Write:
    """Write a module of tasks, allow it, and return its name."""
    folder = tmp_path / 'modules'
    folder.mkdir()
    settings.syspath_prepend(folder)

    def write_module(source: str, name: str = 'mod', head: str = HEAD) -> str:
        unique = f'{name}_{abs(hash(tmp_path))}'
        (folder / f'{unique}.py').write_text(head + source)
        settings.setenv('JOB_TASK_MODULES', f'workers,tests.support.tasks,{unique}')
        environment_config.cache_clear()
        return unique

    return write_module


def task_of(write: Write, parameters: str, head: str = HEAD) -> Task:
    module = write(f'def f({parameters}): ...\n', head=head)
    return resolve_task(f'{module}.f')


def check(task: Task, *args: Any, **kwargs: Any) -> None:
    task.pack(args, kwargs)


# Paths


@pytest.mark.parametrize(
    'path',
    [
        'workers.svg_tasks.generate_complex_svg',
        'tests.support.tasks.add',
        'tests.support.tasks.fail',
    ],
)
def test_a_public_function_of_an_allowed_module_is_a_task(path: str) -> None:
    assert resolve_task(path).path == path
    assert callable(resolve_task(path).function)


@pytest.mark.parametrize(
    'path',
    [
        'os.system',
        'builtins.print',
        'print',
        'subprocess.run',
        'libraries.files.write_output',
        'tests.conftest.kill_group',
        'worker.f',
        'workers/svg_tasks.f',
        'workers_of_others.f',
        'xworkers.svg_tasks.generate_complex_svg',
        'tests.tasks_of_others.add',
        'tests.add',
        '',
        '.',
        '..',
        ' workers.svg_tasks.generate_complex_svg',
        '.workers.svg_tasks.generate_complex_svg',
    ],
)
def test_a_path_outside_the_allowed_modules_names_them(path: str) -> None:
    with pytest.raises(
        UnknownTaskError, match=r'allowed task modules \(workers, tests\.support\.tasks\)'
    ):
        resolve_task(path)


@pytest.mark.parametrize(
    'path',
    [
        'workers.svg_tasks.os.system',
        'workers.no_such_module.f',
        'workers.svg_tasks.no_such_function',
        'workers.svg_tasks.',
        'workers..svg_tasks.generate_complex_svg',
        'workers.svg_tasks.generate_complex_svg.__globals__',
        'workers.svg_tasks.generate_complex_svg.__call__',
        'workers.svg_tasks.__name__',
        'workers.svg_tasks.__builtins__',
        'workers.svg_tasks.generate_complex_svg ',
        'workers.svg tasks.f',
        'workers.svg_tasks\0.f',
        'workers.svg_tasks.generate_complex_svg()',
        'workers.é\ud800.f',
        'workers.' + 'x' * 100_000 + '.f',
        'workers.svg_tasks',
        'tests.support.tasks.MODULE_OBJECT',
        'tests.support.tasks.MODULE_OBJECT.system',
        'tests.support.tasks.NotATask',
        'tests.support.tasks.Point',
        'tests.support.tasks._private',
        'tests.support.tasks.__doc__',
        'tests.support.tasks.os',
        'tests.support.tasks.os.system',
    ],
    ids=lambda path: ascii(path[:50]),
)
def test_a_path_that_names_no_task_is_unknown(path: str) -> None:
    with pytest.raises(UnknownTaskError, match=r'names no|failed'):
        resolve_task(path)


def test_an_unknown_name_lists_the_tasks_of_the_module(write: Write) -> None:
    module = write('def one(): ...\ndef two(): ...\ndef _three(): ...\nclass Four: ...\n')
    with pytest.raises(UnknownTaskError, match=f'{module} has one, two') as refusal:
        resolve_task(f'{module}.no_such')
    assert '_three' not in str(refusal.value)


def test_a_name_that_is_merely_imported_says_where_it_is_defined(write: Write) -> None:
    module = write('from tests.support.tasks import add\nfrom os.path import join\n')
    with pytest.raises(UnknownTaskError, match=r"'tests\.support\.tasks\.add'"):
        resolve_task(f'{module}.add')
    with pytest.raises(UnknownTaskError, match=r'only imported'):
        resolve_task(f'{module}.join')


@pytest.mark.parametrize(
    'source',
    [
        'f = print',
        'f = 1',
        'f = None',
        'class f: ...',
        'f = functools.partial(print)',
        'class C:\n    def __call__(self): ...\nf = C()',
        'class C:\n    def m(self): ...\nf = C().m',
    ],
)
def test_only_a_function_is_a_task(write: Write, source: str) -> None:
    module = write(source)
    with pytest.raises(UnknownTaskError, match='names no public function'):
        resolve_task(f'{module}.f')


def test_a_method_is_no_task(write: Write) -> None:
    module = write('class C:\n    @staticmethod\n    def m(): ...\n')
    with pytest.raises(UnknownTaskError, match='there is no module'):
        resolve_task(f'{module}.C.m')


# Functions in place of their paths


def module_of(write: Write, source: str) -> ModuleType:
    return importlib.import_module(write(source))


def test_a_function_is_the_task_of_its_path(write: Write) -> None:
    decorated = module_of(write, f'{DECORATE}@decorate\ndef f(number: int): ...\n')
    for function in (add, decorated.f):
        task = resolve_task(function)
        assert task is resolve_task(f'{function.__module__}.{function.__name__}')
        assert task.function is function


def test_a_function_outside_the_allowed_modules_names_them() -> None:
    with pytest.raises(UnknownTaskError, match=r"'qdjobs\.client\.tasks\.resolve_task' is outside"):
        resolve_task(resolve_task)


NO_FUNCTION = 'is no function: a task is a function, or its dotted path, such as'
NOT_AT_THE_TOP = 'is nested, nameless or private'
NOT_THERE = r"worker that imports '\w+\.f' does not get the function that was passed: pass the"
NOT_TASKS = {
    'lambda': ('task = lambda: None', NOT_AT_THE_TOP),
    'nested': ('def outer():\n    def f(): ...\n    return f\ntask = outer()', NOT_AT_THE_TOP),
    'private': ('def _task(): ...\ntask = _task', NOT_AT_THE_TOP),
    'function of a class': ('class A:\n    def f(self): ...\ntask = A.f', NOT_AT_THE_TOP),
    'bound method': ('class A:\n    def f(self): ...\ntask = A().f', NO_FUNCTION),
    'class': ('class task: ...', NO_FUNCTION),
    'callable': ('task = functools.partial(print)', NO_FUNCTION),
    'of the script': ("def task(): ...\ntask.__module__ = '__main__'", 'that was started'),
    'undecorated': ('@decorate\ndef f(): ...\ntask = f.__wrapped__', NOT_THERE),
    'decorated under another name': ('def f(): ...\ntask = decorate(f)', NOT_THERE),
    'deleted': ('def f(): ...\ntask = f\ndel f', NOT_THERE),
    'replaced': ('def f(): ...\ntask = f\nf = None', NOT_THERE),
}
DECORATE = """
def decorate(function):
    @functools.wraps(function)
    def decorated(*args, **kwargs): return function(*args, **kwargs)
    return decorated
"""


@pytest.mark.parametrize('kind', NOT_TASKS)
def test_a_function_that_no_worker_would_find_is_refused(write: Write, kind: str) -> None:
    source, told = NOT_TASKS[kind]
    module = module_of(write, f'{DECORATE}\n{source}\n')
    queue = JobQueue()
    ways: tuple[Callable[[Any], object], ...] = (
        enqueue_background_job,
        lambda task: enqueue_background_jobs(task, [{}]),
        lambda task: queue.add('name', task),
        queue.enqueue,
    )
    for way in ways:
        with pytest.raises(UnknownTaskError, match=told):
            way(module.task)
    assert list_jobs() == []


@pytest.mark.parametrize('task', [None, 1, b'workers.svg_tasks.f', ['a'], len])
def test_what_is_no_function_and_no_path_is_no_task(task: Any) -> None:
    with pytest.raises(UnknownTaskError, match=NO_FUNCTION):
        resolve_task(task)


def test_a_function_is_enqueued_as_its_path_is() -> None:
    queue = JobQueue(Flask('an-app'))
    queue.add('add', add, job_queue='low')
    enqueue_background_job(add, 1, b=2, job_id='one')
    enqueue_background_jobs(add, [{'a': 1}], job_id='many')
    queue.enqueue(add, 1, job_id='named')
    statuses = get_job_statuses(['one', 'many-0', 'named'])
    assert {status['task'] for status in statuses} == {'tests.support.tasks.add'}
    assert [status['queue'] for status in statuses] == ['default', 'default', 'low']


def test_the_query_of_a_request_becomes_a_dict_unless_a_value_would_be_lost(write: Write) -> None:
    task = task_of(write, 'value: dict[str, str]')
    assert task.pack((ImmutableMultiDict({'a': '1'}),), {}) == (({'a': '1'},), {})
    with pytest.raises(InvalidJobError, match=r"'a' has several values: .*to_dict\(flat=False\)"):
        task.pack((ImmutableMultiDict([('a', '1'), ('a', '2')]),), {})


@pytest.mark.parametrize(
    ('name', 'option'),
    [
        ('max_attempts', 'job_max_retries, which is one less'),
        ('delay', 'job_delay.'),
        ('depends_on', 'job_after.'),
        ('at_front', "job_queue, such as job_queue='high'."),
        ('result_ttl', 'job_result_ttl.'),
        ('on_failure', 'job_on_failure.'),
    ],
)
def test_an_option_of_another_queue_is_refused_with_the_name_that_it_has_here(
    name: str, option: str
) -> None:
    with pytest.raises(InvalidJobError, match=f'option of the job, write {option}'):
        enqueue_background_job(add, 1, b=2, **{name: 5})


# Imports that fail


@pytest.mark.parametrize(
    ('source', 'cause', 'told'),
    [
        ('import no_such_library\n', ModuleNotFoundError, "No module named 'no_such_library'"),
        ('import workers.no_such\n', ModuleNotFoundError, "No module named 'workers.no_such'"),
        ('from os import no_such\n', ImportError, "cannot import name 'no_such'"),
        ('def f(:\n', SyntaxError, 'SyntaxError'),
        ('1 / 0\n', ZeroDivisionError, 'ZeroDivisionError: division by zero'),
        ('raise SystemExit(3)\n', SystemExit, 'SystemExit: 3'),
        ("raise KeyError('x')\n", KeyError, 'KeyError'),
        ('def g(): g()\ng()\n', RecursionError, 'RecursionError'),
    ],
)
def test_a_module_that_fails_to_import_shows_its_own_cause(
    write: Write, source: str, cause: type[BaseException], told: str
) -> None:
    module = write(source)
    with pytest.raises(UnknownTaskError, match=told) as refusal:
        resolve_task(f'{module}.f')
    assert isinstance(refusal.value.__cause__, cause)
    assert module in str(refusal.value)
    assert module not in sys.modules


def test_a_module_that_was_mended_is_imported_again(write: Write) -> None:
    module = write('1 / 0\n')
    with pytest.raises(UnknownTaskError):
        resolve_task(f'{module}.f')
    write('def f(number: int): ...   # mended\n')
    assert resolve_task(f'{module}.f').path == f'{module}.f'


def test_an_interrupt_during_an_import_is_none_of_ours(write: Write) -> None:
    module = write('raise KeyboardInterrupt\n')
    with pytest.raises(KeyboardInterrupt):
        resolve_task(f'{module}.f')


def test_a_task_is_resolved_and_its_module_imported_once(write: Write, tmp_path: Path) -> None:
    log = tmp_path / 'log'
    module = write(f"with open({str(log)!r}, 'a') as f: f.write('x')\ndef f(): ...\n")
    first = resolve_task(f'{module}.f')
    sys.modules.pop(module)
    assert resolve_task(f'{module}.f') is first
    assert log.read_text() == 'x'


def test_other_allowed_modules_are_another_answer(settings: pytest.MonkeyPatch) -> None:
    resolve_task('tests.support.tasks.add')
    settings.setenv('JOB_TASK_MODULES', 'workers')
    environment_config.cache_clear()
    with pytest.raises(UnknownTaskError, match=r'allowed task modules \(workers\)'):
        resolve_task('tests.support.tasks.add')


def test_a_worker_names_another_application_as_the_cause_of_a_task_elsewhere() -> None:
    says = r'another application.*JOB_KEY_PREFIX.*JOB_TASK_MODULES=workers,\S+,email_app$'
    with pytest.raises(UnknownTaskError, match=says):
        check_call('email_app.send', (), {})


def test_only_an_application_with_its_own_modules_has_a_hint_about_them() -> None:
    def refusal_of_os() -> str:
        with pytest.raises(UnknownTaskError) as refusal:
            resolve_task('os.system')
        return str(refusal.value)

    short = refusal_of_os()
    assert short.endswith('define the task there, or add its module to JOB_TASK_MODULES.')
    JobQueue(Flask('plain'))
    own = Flask('own')
    own.config['JOB_TASK_MODULES'] = 'os'
    assert refusal_of_os() == short
    with own.app_context():  # it has no JobQueue yet
        assert refusal_of_os() == f'{short} {HINT}'
    JobQueue(own)
    with own.app_context():
        assert resolve_task('os.popen').path == 'os.popen'
    other = Flask('other')
    JobQueue(other)
    with other.app_context():
        assert refusal_of_os() == f'{short} {HINT}'


# Functions that cannot be tasks


@pytest.mark.parametrize('parameters', ['job_name', 'a, *, job_id=1', 'job_timeout: int, /'])
def test_a_parameter_that_begins_with_job_is_refused(write: Write, parameters: str) -> None:
    with pytest.raises(InvalidJobError, match=r"'job_\w+'.*options of the job: rename"):
        task_of(write, parameters)


@pytest.mark.parametrize(
    'source', ['def f():\n    yield 1\n', 'async def f():\n    yield 1\n', 'f = lambda: (yield)\n']
)
def test_a_generator_is_refused(write: Write, source: str) -> None:
    module = write(source)
    path = f'{module}.f'
    with pytest.raises(InvalidJobError, match=f'{path} is a generator'):
        resolve_task(path)


@pytest.mark.parametrize(
    'hint',
    [
        'Thing',
        'list[Thing]',
        'dict[str, Thing]',
        'Thing | None',
        'Callable[[], None]',
        'frozenset[int]',
        'bytearray',
        'complex',
        'Annotated[Thing, 1]',
        "'NoSuchName'",
        "'1 / 0'",
        "'not a hint'",
        '3',
    ],
)
def test_a_hint_that_cannot_be_checked_names_the_parameter(write: Write, hint: str) -> None:
    module = write(f'class Thing: ...\ndef f(good: int, bad: {hint}): ...\n')
    with pytest.raises(InvalidJobError, match=rf"{module}\.f: the hint of parameter 'bad'"):
        resolve_task(f'{module}.f')


LATER = 'from __future__ import annotations\nfrom typing import TYPE_CHECKING\n'


def test_a_hint_only_for_the_type_checker_names_the_parameter(write: Write) -> None:
    module = write(
        'if TYPE_CHECKING:\n    from decimal import Decimal\ndef f(price: Decimal): ...\n',
        head=LATER,
    )
    with pytest.raises(InvalidJobError, match=r"parameter 'price', Decimal, .*not defined"):
        resolve_task(f'{module}.f')


def test_hints_of_a_module_that_postpones_them_are_checked(write: Write) -> None:
    task = task_of(write, 'number: int, rows: list[tuple[int, str]] | None = None', LATER)
    check(task, 1, [(1, 'a')])
    with pytest.raises(InvalidJobError, match=r"argument 'rows'.*Expected int, got str"):
        check(task, 1, [('1', 'a')])


# Checks of a task's own

CHECKED = """
from qdjobs.checks import checked_by

def _check(low: int, high: int) -> None:
    if low > high:
        raise ValueError(f'{low} is above {high}')

@checked_by(_check)
def f(low: int, high: int) -> int:
    return high - low
"""


def test_a_check_of_the_tasks_own_refuses_every_kind_of_call(write: Write) -> None:
    path = f'{write(CHECKED)}.f'
    text = f'{path}: 3 is above 2'
    for refused in (
        lambda: call_from_python(path, (3, 2), {}, {}),
        lambda: call_from_json(path, {'low': 3, 'high': 2}, {}),
        lambda: call_from_text(path, {'low': '3', 'high': '2'}, {}),
        lambda: calls_from_python(path, [{'low': 3, 'high': 2}], {}),
    ):
        with pytest.raises(InvalidJobError, match=text):
            refused()
    assert call_from_python(path, (2, 3), {}, {}).args == (2, 3)


def test_a_check_changes_no_argument_and_is_no_coroutine(write: Write) -> None:
    source = """
from qdjobs.checks import checked_by

def _check(rows: list[int]) -> None:
    rows.append(object())

@checked_by(_check)
def f(rows: list[int]) -> None: ...
"""
    rows = [1]
    assert call_from_python(f'{write(source)}.f', (rows,), {}, {}).args == ([1],)
    assert rows == [1]
    with pytest.raises(UnknownTaskError, match='_check is a coroutine, which nobody would wait'):
        resolve_task(f'{write(source.replace("def _check", "async def _check"), "another")}.f')


def test_a_worker_does_not_call_a_tasks_own_check(write: Write) -> None:
    function, (args, kwargs) = check_call(f'{write(CHECKED)}.f', (3, 2), {})
    assert function(*args, **kwargs) == -1


# Results

RESULTS = """
import dataclasses, enum
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypedDict
from rq import Retry

@dataclasses.dataclass
class Mail:
    to: str

class Colour(enum.Enum):
    RED = 'red'

class Row(TypedDict):
    name: str

def f() -> {hint}: ...
"""


@pytest.mark.parametrize('hint', ['Mail', 'list[Mail]', 'Path', 'dict[str, Colour]', 'Mail | None'])
def test_a_task_whose_result_does_not_travel_is_refused(write: Write, hint: str) -> None:
    module = write(RESULTS.format(hint=hint))
    with pytest.raises(InvalidJobError, match=r'f returns .*, which does not travel: .* is no pl'):
        resolve_task(f'{module}.f')


@pytest.mark.parametrize(
    'hint',
    [
        *('None', 'Any', 'object', 'Row', 'dict[str, Row] | Retry', 'Retry', 'NoReturn'),
        *('Iterable[str]', 'Sequence[int]', 'list[object]', "'NoSuchName'", "'missing.Name'"),
    ],
)
def test_a_task_whose_result_may_travel_is_accepted(write: Write, hint: str) -> None:
    module = write(RESULTS.format(hint=hint))
    check(resolve_task(f'{module}.f'))


# Objects

OBJECTS = """
import dataclasses, enum, msgspec
from datetime import datetime
from typing import Any, Sequence

class Colour(enum.Enum):
    RED = 'red'
    BLUE = 'blue'

@dataclasses.dataclass
class Address:
    email: str
    tags: set[str] = dataclasses.field(default_factory=set)

@dataclasses.dataclass
class Welcome:
    user_id: int
    to: Address
    sent_at: datetime | None = None
    colour: Colour = Colour.RED

class Point(msgspec.Struct):
    x: float
    y: float = 0.0

def f(data: Welcome, *points: Point, colour: Colour | None = None,
      others: Sequence[Address] = (), **more: Address): ...
def loose(data: Any): ...
"""


@pytest.fixture
def objects(write: Write) -> Any:
    return sys.modules[resolve_task(f'{write(OBJECTS)}.f').function.__module__]


def test_objects_travel_as_plain_data_and_arrive_as_objects(objects: Any) -> None:
    path = f'{objects.__name__}.f'
    address = objects.Address('zoe@example.com', {'a'})
    data = objects.Welcome(7, address, datetime(2030, 1, 1, tzinfo=UTC), objects.Colour.BLUE)
    args = (data, objects.Point(1.5, 2))
    kwargs = {'colour': objects.Colour.RED, 'others': [address], 'more': address}
    packed = resolve_task(path).pack(args, kwargs)
    assert packed[0][0] == {
        'user_id': 7,
        'to': {'email': 'zoe@example.com', 'tags': ['a']},
        'sent_at': datetime(2030, 1, 1, tzinfo=UTC),
        'colour': 'blue',
    }
    travelled = PlainSerializer.loads(PlainSerializer.dumps(packed))
    assert check_call(path, *travelled)[1] == (args, kwargs)


@pytest.mark.parametrize(
    ('make', 'reason'),
    [
        (lambda o: o.Welcome('7', o.Address('a')), r"argument 'data': Expected int, got str at"),
        (lambda o: o.Welcome(7, None), r"argument 'data': Expected object, got null at \$.to"),
        (lambda o: o.Address('a'), r"argument 'data': .*missing required field user_id"),
        (
            lambda o: {'user_id': 7, 'to': {'email': 'a'}},
            "argument 'data': Expected Welcome, got d",
        ),
        (
            lambda o: o.Welcome(7, o.Address(lambda: 1)),
            r"argument 'data': Encoding objects of type",
        ),
        (lambda o: object(), "argument 'data': Encoding objects of type object"),
    ],
)
def test_an_object_that_does_not_fit_is_refused(
    objects: Any, make: Callable[[Any], Any], reason: str
) -> None:
    with pytest.raises(InvalidJobError, match=reason):
        resolve_task(f'{objects.__name__}.f').pack((make(objects),), {})


CHANGING = """
import dataclasses, enum, msgspec
from typing import Any, Optional

class Tone(enum.Enum):
    A = 'a'

@dataclasses.dataclass
class Base:
    x: int

@dataclasses.dataclass
class Derived(Base): ...

@dataclasses.dataclass
class Counting:
    x: int
    def __post_init__(self):
        self.x += 1

@dataclasses.dataclass
class Strict:
    x: int
    def __post_init__(self):
        assert self.x < 100, 'too large'

@dataclasses.dataclass
class Holder:
    what: Any = None
    base: Optional[Base] = None
    tone: Tone = Tone.A

class Short(msgspec.Struct, omit_defaults=True, rename='camel', tag='short'):
    first_part: int = 1
    next_part: Optional[Base] = None

def f(value: Holder | None = None, counting: Counting | None = None,
      strict: Strict | None = None, short: Short | None = None): ...
"""


@pytest.fixture
def changing(write: Write) -> Any:
    return sys.modules[resolve_task(f'{write(CHANGING)}.f').function.__module__]


@pytest.mark.parametrize(
    ('make', 'reason'),
    [
        (lambda o: {'counting': o.Counting(1)}, 'argument .counting.: 2 would arrive as 3'),
        (lambda o: {'value': o.Holder({1, 2})}, 'Expected list, got set'),
        (lambda o: {'value': o.Holder(o.Base(1))}, 'Expected dict, got Base'),
        (lambda o: {'value': o.Holder(o.Tone.A)}, 'Expected str, got Tone'),
        (lambda o: {'value': o.Holder(base=o.Derived(1))}, 'Expected Base, got Derived'),
    ],
)
def test_an_object_that_would_arrive_changed_is_refused(
    changing: Any, make: Callable[[Any], Any], reason: str
) -> None:
    with pytest.raises(InvalidJobError, match=reason):
        resolve_task(f'{changing.__name__}.f').pack((), make(changing))


@pytest.mark.parametrize(
    ('given', 'reason'),
    [
        ({'counting': {'x': 1}}, '2 would arrive as 3'),
        ({'strict': {'x': 100}}, 'AssertionError: too large'),
        ({'value': {'tone': 'b'}}, r"Invalid enum value 'b' at \$.tone"),
        ({'short': {'type': 'short', 'other': 1}}, "Unexpected key 'other'"),
    ],
)
def test_an_object_from_json_that_does_not_fit_is_refused(
    changing: Any, given: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidJobError, match=reason):
        resolve_task(f'{changing.__name__}.f').read_json(given)


def test_a_struct_may_leave_out_defaults_and_rename_its_fields(changing: Any) -> None:
    task = resolve_task(f'{changing.__name__}.f')
    given = {'type': 'short', 'firstPart': 1, 'nextPart': {'x': 2}}
    read = task.read_json({'short': given})
    assert task.unpack((), read)[1] == {'short': changing.Short(1, changing.Base(2))}
    assert task.unpack(*task.pack((), {'short': changing.Short()}))[1] == {
        'short': changing.Short()
    }


def test_an_object_that_no_hint_names_does_not_travel(objects: Any) -> None:
    with pytest.raises(InvalidJobError, match=r"argument 'data' is of type .*Address, which does"):
        resolve_task(f'{objects.__name__}.loose').pack((objects.Address('a'),), {})


def test_an_object_comes_from_json_and_text_as_well(objects: Any) -> None:
    task = resolve_task(f'{objects.__name__}.f')
    json = {'user_id': 7, 'to': {'email': 'a', 'tags': ['x']}, 'sent_at': '2030-01-01T00:00:00Z'}
    address = objects.Address('a', {'x'})
    data = objects.Welcome(7, address, datetime(2030, 1, 1, tzinfo=UTC))
    read = task.read_json({'data': json, 'colour': 'red'})
    assert task.unpack((), read)[1] == {'data': data, 'colour': objects.Colour.RED}
    text = '{"user_id": 7, "to": {"email": "a", "tags": ["x"]}, "sent_at": "2030-01-01T00:00:00Z"}'
    read = task.read_text({'data': text, 'colour': 'blue'})
    assert task.unpack((), read)[1] == {'data': data, 'colour': objects.Colour.BLUE}
    for wrong in ({'to': {'email': 'a', 'phone': 1}}, {'colour': 'green'}, {'bad': 1}):
        with pytest.raises(InvalidJobError, match='argument'):
            task.read_json({'data': json | wrong})


def test_the_worker_refuses_an_object_of_another_version(objects: Any) -> None:
    path = f'{objects.__name__}.f'
    newer = {'user_id': 7, 'to': {'email': 'a', 'tags': [], 'phone': '1'}}
    with pytest.raises(TypeError, match="argument 'data': Unexpected key 'phone'"):
        check_call(path, (newer,), {})
    with pytest.raises(TypeError, match='missing required field user_id'):
        check_call(path, ({'to': {'email': 'a'}},), {})


def test_a_default_need_not_fit_its_hint(write: Write) -> None:
    check(task_of(write, 'number: int = None'))


# Arguments and the signature


@pytest.mark.parametrize(
    ('parameters', 'args', 'kwargs'),
    [
        ('', (), {}),
        ('a, b=2', (1,), {}),
        ('a, b=2', (1, 2), {}),
        ('a, b=2', (), {'b': 1, 'a': 2}),
        ('a, /', (1,), {}),
        ('a, /, **rest', (1,), {'a': 2}),
        ('*, a', (), {'a': 1}),
        ('*args', (1, 'a', None), {}),
        ('**rest', (), {'self': 1, 'args': 2, 'kwargs': 3, 'path': 4, 'timeout': 5, 'queue': 6}),
        ('timeout, description, meta, queue', (1, 2, 3, 4), {}),
    ],
)
def test_arguments_that_fit_are_taken(
    write: Write, parameters: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    check(task_of(write, parameters), *args, **kwargs)


@pytest.mark.parametrize(
    ('parameters', 'args', 'kwargs', 'told'),
    [
        ('a', (), {}, "missing a required argument: 'a'"),
        ('a, b', (1,), {}, "missing a required argument: 'b'"),
        ('*, a', (), {}, "missing a required.* argument: 'a'"),
        ('', (1,), {}, 'too many positional arguments'),
        ('a', (1, 2), {}, 'too many positional arguments'),
        ('*, a', (1,), {}, 'too many positional arguments'),
        ('a', (1,), {'b': 2}, "unexpected keyword argument 'b'"),
        ('a', (1,), {'a': 2}, "multiple values for argument 'a'"),
        ('a, /', (), {'a': 1}, "'a' parameter is positional only|missing a required"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_the_signature(
    write: Write, parameters: str, args: tuple[Any, ...], kwargs: dict[str, Any], told: str
) -> None:
    task = task_of(write, parameters)
    with pytest.raises(InvalidJobError, match=told) as refusal:
        task.pack(args, kwargs)
    assert str(refusal.value).startswith(f'{task.path}({parameters})')


# Arguments and the hints: (hint, what fits, what does not)

HINTS: dict[str, tuple[list[Any], list[Any]]] = {
    'int': ([1, -1, 2**70, HUGE], [True, 1.0, '1', None, Decimal(1), b'1']),
    'float': ([1.5, 1, float('nan'), float('inf')], [True, '1', None, Decimal(1), Decimal('0.1')]),
    'bool': ([True, False], [1, 0, 'true', None]),
    'str': (['', 'a', '\ud800'], [b'a', 1, None, Markup('a'), UUID(int=1), NOW]),
    'bytes': ([b'', b'\xff'], ['AA==', bytearray(b'x'), memoryview(b'x'), [1], None]),
    'None': ([None], [0, '', False]),
    'datetime': (
        [NOW, NOW.replace(tzinfo=None)],
        ['2030-01-01T00:00:00Z', date(2030, 1, 1), 0, 1.5],
    ),
    'date': ([date(2030, 1, 1)], [NOW, '2030-01-01', 0]),
    'time': ([time(1)], ['01:00:00', NOW]),
    'timedelta': ([timedelta(1)], [1, 1.5, 'P1D']),
    'Decimal': ([Decimal('1.5'), Decimal('NaN'), Decimal('sNaN')], [1, 1.5, '1.5']),
    'UUID': ([UUID(int=1)], [str(UUID(int=1)), UUID(int=1).bytes, 1]),
    'list': ([[], [1, 'a']], [(1,), {1}, 'a', {}, range(3)]),
    'list[int]': ([[], [1]], [[True], ['1'], (1,), {1}, [1.0]]),
    'list[float]': ([[1.5, 1]], [[True], [Decimal(1)], ['1']]),
    'list[Any]': ([[1, (2,), {3}]], [(1,), [object()]]),
    'tuple': ([(), (1, 'a')], [[1], {1}]),
    'tuple[int, str]': ([(1, 'a')], [[1, 'a'], (1,), (1, 'a', 2), ('a', 1)]),
    'tuple[int, ...]': ([(), (1, 2)], [[1], ('a',)]),
    'set': ([set(), {1}], [[1], (1,), frozenset({1}), {}]),
    'set[int]': ([{1}], [[1], {'a'}, {True}]),
    'dict': ([{}, {1: 'a'}], [[], [(1, 2)], OrderedDict({'a': 1}), MappingProxyType({})]),
    'dict[str, int]': ([{}, {'a': 1}], [{1: 1}, {'a': '1'}, {'a': True}, OrderedDict({'a': 1})]),
    'dict[int, str]': ([{1: 'a'}], [{'1': 'a'}, {True: 'a'}, {1.0: 'a'}]),
    'dict[tuple[int, int], str]': ([{(1, 2): 'a'}], [{(1,): 'a'}, {1: 'a'}]),
    'Any': ([None, 1, [(1,)]], [object(), OrderedDict()]),
    'object': ([None, 1, [(1,)]], [object(), OrderedDict()]),
    "Literal['a', 1]": (['a', 1], ['b', 2, True, 1.0, None]),
    "Literal['a', None]": (['a', None], ['b', 0]),
    'Literal[True]': ([True], [False, 1]),
    'int | None': ([1, None], ['1', True]),
    'Optional[datetime]': ([NOW, None], ['2030-01-01T00:00:00Z', '']),
    'Union[int, str]': ([1, '1'], [1.5, b'1', True, None]),
    'int | float': ([1, 1.5, 2**53 + 1], [True, '1']),
    'str | datetime': (['a', NOW], [1, date(2030, 1, 1)]),
    'str | bytes | UUID | Decimal': (['a', b'a', UUID(int=1), Decimal(1)], [1, None]),
    'list[int] | set[int]': ([[1], {1}], [(1,), ['a']]),
    'list[int] | list[str]': ([[1], ['a']], [[1, 'a']]),
    'list[dict[str, tuple[int, set[str]]]]': (
        [[{'a': (1, {'b'})}]],
        [[{'a': [1, {'b'}]}], [{'a': (1, ['b'])}], [{'a': ('1', {'b'})}], [{1: (1, {'b'})}]],
    ),
    'Point': ([{'x': 1}, {'x': 1, 'y': None}], [{}, {'x': '1'}, {'x': 1, 'z': 2}, [('x', 1)]]),
    'list[Point]': ([[{'x': 1}]], [[{'x': True}], [{'y': 1}], {'x': 1}]),
    'Tree': ([{'kids': [{'kids': []}]}], [{'kids': [{}]}, {'kids': ({'kids': []},)}]),
    'Annotated[int, Meta(ge=1, le=5)]': ([1, 5], [0, 6, True, '1']),
    'Annotated[float, Meta(gt=0)] | None': ([0.1, 1, None], [0, -1.5]),
    "Annotated[str, Meta(pattern='^a')]": (['a'], ['b', '']),
    'list[Annotated[int, Meta(ge=1)]]': ([[1]], [[0]]),
    "Annotated[int, 'a note']": ([1], ['1']),
    'Sequence': ([[1, 'a'], (1,)], [{1}, 'a', b'a', {}]),
    'Sequence[int]': ([[1], (1,), [], ()], [{1}, '1', b'1', ['a'], ('a',), range(3)]),
    'list[Sequence[int]]': ([[[1]], [(1,)], [[1], (1,)]], [[{1}], [['a']], [('a',)]]),
    'dict[str, Sequence[int]]': ([{'a': [1]}, {'a': (1,)}], [{'a': {1}}, {'a': ('a',)}]),
    'Annotated[Sequence[int], Meta(min_length=1)]': ([[1], (1,)], [[], (), ['a']]),
    'Sequence[int] | None': ([[1], (1,), None], [{1}]),
    'Collection[str]': ([['a'], ('a',), {'a'}], [[1], (1,), {1}]),
    'Mapping': ([{}, {1: 2}], [[], OrderedDict(), MappingProxyType({})]),
    'Mapping[str, int]': ([{'a': 1}], [{'a': 'a'}, {1: 1}, [('a', 1)], OrderedDict({'a': 1})]),
    'Mapping[str, Mapping[str, int]]': ([{'a': {'b': 1}}], [{'a': {'b': 'c'}}, {'a': 1}]),
}
TYPES = """
class Point(TypedDict):
    x: int
    y: NotRequired[int | None]
class Tree(TypedDict):
    kids: 'list[Tree]'
"""


@pytest.mark.parametrize('hint', HINTS)
def test_what_fits_a_hint_is_taken_as_it_is(write: Write, hint: str) -> None:
    task = task_of(write, f'value: {hint}', HEAD + TYPES)
    for value in HINTS[hint][0]:
        check(task, value)


def assert_refused(task: Task, value: Any) -> None:
    try:
        check(task, value)
    except InvalidJobError as error:
        assert str(error).startswith(f"{task.path}: argument 'value'")  # noqa: PT017
    else:
        pytest.fail(f'{value!r} was taken')


@pytest.mark.parametrize('hint', HINTS)
def test_what_does_not_fit_a_hint_is_refused(write: Write, hint: str) -> None:
    task = task_of(write, f'value: {hint}', HEAD + TYPES)
    for value in HINTS[hint][1]:
        assert_refused(task, value)


@pytest.mark.parametrize('value', [2**53 + 1, 1_893_456_000_123_456_789, -(2**60) - 1, 2**70])
def test_an_integer_does_for_a_float_whatever_its_size(write: Write, value: int) -> None:
    check(task_of(write, 'seconds: float'), value)
    check(task_of(write, 'seconds: float'), seconds=value)


def test_a_number_too_large_for_a_float_is_refused(write: Write) -> None:
    task = task_of(write, 'value: float')
    for value in (10**400, HUGE):
        with pytest.raises(InvalidJobError, match="argument 'value': Number out of range"):
            check(task, value)


def test_a_wrong_number_of_ten_thousand_digits_is_refused(write: Write) -> None:
    task = task_of(write, "text: str = '', few: Literal[1] = 1, rest: Any = None")
    for kwargs in ({'text': HUGE}, {'few': HUGE}, {'rest': {HUGE: object()}}):
        with pytest.raises(InvalidJobError, match=f"argument '{next(iter(kwargs))}'"):
            check(task, **kwargs)


def test_a_key_that_a_typeddict_does_not_know_is_called_that(write: Write) -> None:
    task = task_of(write, 'point: Point', HEAD + TYPES)
    with pytest.raises(InvalidJobError) as refusal:
        check(task, {'x': 1, 'z': 2})
    assert 'list, tuple and set' not in str(refusal.value)


@pytest.mark.parametrize(
    ('hint', 'value', 'place'),
    [
        ('list[int]', [1, 'a'], r'Expected int, got str at \$\[1\]'),
        ('Point', {'x': 'a'}, r'Expected int, got str at \$\.x'),
        ('Tree', {'kids': [{}]}, r'missing required field kids at \$\.kids\[0\]'),
        ("Literal['a', 'b']", 'c', r"Literal\['a', 'b'\]"),
        ('Annotated[int, Meta(le=5)]', 6, 'Expected int <= 5, got 6'),
        ('Annotated[str, Meta(max_length=2)]', 'Ada', "Expected str of length <= 2, got 'Ada'"),
        ('list[str]', 'Ada', 'Expected list, got str'),
        (
            'Annotated[list[int], Meta(max_length=1)] | None',
            'Ada',
            r'Expected list \| null, got str',
        ),
        ('Annotated[list[int], Meta(max_length=1)]', [1, 2], r'list of length <= 1, got \[1, 2\]'),
        ('set[int] | int', 'Ada', r'Expected int \| set, got str'),
        ('int', [1], 'Expected int, got list'),
        ('dict[str, list[int]]', {'a': 1}, r'Expected array, got int at \$'),
        ('list', (1,), 'Expected list, got tuple'),
        ('str | datetime', 1, 'Expected str, got int / Expected datetime, got int'),
    ],
)
def test_the_error_says_where_and_what(write: Write, hint: str, value: Any, place: str) -> None:
    task = task_of(write, f'value: {hint}', HEAD + TYPES)
    with pytest.raises(InvalidJobError, match=place):
        check(task, value)


def test_each_of_many_arguments_is_checked(write: Write) -> None:
    task = task_of(write, '*args: int, **kwargs: str')
    check(task)
    check(task, 1, 2, a='b', args='c', kwargs='d')
    with pytest.raises(InvalidJobError, match=r'argument args\[1\]: Expected int'):
        check(task, 1, '2')
    with pytest.raises(InvalidJobError, match=r"argument 'b': Expected str"):
        check(task, 1, a='a', b=1)


@pytest.mark.parametrize('parameters', ['a: int, /', '*, a: int', 'a: int'])
def test_every_kind_of_parameter_is_checked(write: Write, parameters: str) -> None:
    task = task_of(write, parameters)
    good, bad = (
        (((1,), {}), (('1',), {})) if '*' not in parameters else (((), {'a': 1}), ((), {'a': '1'}))
    )
    task.pack(*good)
    with pytest.raises(InvalidJobError, match="argument 'a': Expected int"):
        task.pack(*bad)


def test_an_argument_without_a_hint_must_still_travel(write: Write) -> None:
    task = task_of(write, 'value, *args, **kwargs')
    for args, kwargs, name in (
        (([1j],), {}, r"'value'\[0\]"),
        ((1, 1j), {}, r'args\[0\]'),
        ((1,), {'a': 1j}, "'a'"),
    ):
        with pytest.raises(InvalidJobError, match=f'argument {name} is of type complex'):
            task.pack(args, kwargs)


@pytest.mark.parametrize('hint', ['Any', 'list', 'list[Any]'])
def test_an_argument_that_contains_itself_is_refused(write: Write, hint: str) -> None:
    task = task_of(write, f'value: {hint}')
    value: list[Any] = []
    value.append(value)
    with pytest.raises(InvalidJobError, match="argument 'value' is nested too deeply"):
        check(task, value)


@pytest.mark.parametrize('hint', ['Any', 'list', 'list[Any]', 'Nest'])
def test_an_argument_nested_too_deeply_is_refused(write: Write, hint: str) -> None:
    nest = "\nclass Nest(TypedDict):\n    inner: 'Nest | None'\n"
    task = task_of(write, f'value: {hint}', HEAD + nest)
    value: Any = None if hint == 'Nest' else []
    for _ in range(100_000):
        value = {'inner': value} if hint == 'Nest' else [value]
    with pytest.raises(InvalidJobError, match="argument 'value'"):
        check(task, value)


# Other functions

DECORATED = """
def loud(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper

@loud
def f(number: int, mode: Literal['a'] = 'a') -> int:
    return number
"""


def test_a_decorated_task_has_the_hints_of_what_it_wraps(write: Write) -> None:
    module = write(DECORATED)
    task = resolve_task(f'{module}.f')
    check(task, 1, mode='a')
    assert task.function(2) == 2
    for args in ((), ('1',), (1, 'b'), (1, 'a', 2)):
        with pytest.raises(InvalidJobError):
            check(task, *args)


def test_a_decorator_of_another_module_finds_the_names_of_the_task(write: Write) -> None:
    decorator = write(DECORATED, 'decorator', 'import functools\nfrom typing import Literal\n')
    head = f'{LATER}from decimal import Decimal\nimport {decorator} as d\n'
    module = write('@d.loud\ndef f(price: Decimal): ...\n', head=head)
    check(resolve_task(f'{module}.f'), Decimal(1))
    with pytest.raises(InvalidJobError, match="argument 'price': Expected decimal"):
        check(resolve_task(f'{module}.f'), 1)


def test_a_coroutine_is_a_task_that_is_checked(write: Write) -> None:
    module = write('async def f(number: int) -> int:\n    return number\n')
    task = resolve_task(f'{module}.f')
    check(task, 1)
    with pytest.raises(InvalidJobError, match='Expected int, got str'):
        check(task, '1')


def test_the_deepest_argument_that_is_accepted_is_read_by_the_worker() -> None:
    task = resolve_task('tests.support.tasks.echo')
    value: Any = 1
    for _ in range(ARGUMENT_DEPTH):
        value = [value]
    check(task, value, value=value)
    payload = PlainSerializer.dumps((task.path, None, (value,), {'value': value}))
    path, _, args, kwargs = PlainSerializer.loads(payload)
    assert check_call(path, args, kwargs) == (task.function, (args, kwargs))
    with pytest.raises(InvalidJobError, match="argument 'value' is nested too deeply"):
        check(task, value=[value])


# The check of the worker


def refusal_of(path: Any, args: Any = (), kwargs: Any = None) -> tuple[type[Exception], str]:
    with pytest.raises((UnknownTaskError, InvalidJobError, TypeError)) as refusal:
        check_call(path, args, {} if kwargs is None else kwargs)
    return refusal.type, str(refusal.value)


def test_a_call_that_fits_yields_the_function_of_the_task() -> None:
    function = resolve_task('tests.support.tasks.add').function
    assert check_call('tests.support.tasks.add', (1,), {'b': 2}) == (function, ((1,), {'b': 2}))
    assert check_call('tests.support.tasks.add', [1, 2], {}) == (function, ((1, 2), {}))


@pytest.mark.parametrize(
    'path',
    [
        'workers.no_such_module.f',
        'workers.svg_tasks.no_such_function',
        'workers.svg_tasks.os.system',
        'tests.support.tasks.NotATask',
        'tests.support.tasks.Path',
    ],
)
def test_a_newer_version_may_have_a_task_that_is_missing_here(path: str) -> None:
    assert refusal_of(path)[0] is UnknownHereError


@pytest.mark.parametrize(
    'path',
    [
        'os.system',
        '',
        'tests.support.tasks._private',
        'tests.support.tasks.__doc__',
        'workers.no_such_module._f',
        'workers.svg_tasks.',
        'workers..svg_tasks.f',
        'workers.svg_tasks.f()',
        'workers.svg_tasks\0.f',
        None,
        7,
        b'tests.support.tasks.add',
        ['a'],
    ],
)
def test_no_version_ever_has_a_task_of_such_a_name(path: Any) -> None:
    assert refusal_of(path)[0] is UnknownTaskError


@pytest.mark.parametrize('source', ['1 / 0\n', 'import no_such_library\n', 'def f(:\n'])
def test_a_module_that_fails_to_import_may_be_whole_in_a_newer_version(
    write: Write, source: str
) -> None:
    module = write(source)
    for _ in range(2):
        assert refusal_of(f'{module}.f')[0] is UnknownHereError
    write('def f(): ...   # whole again\n')
    assert check_call(f'{module}.f', (), {})[0].__name__ == 'f'


@pytest.mark.parametrize(
    ('args', 'kwargs', 'reason'),
    [
        ((), {}, "missing a required argument: 'a'"),
        ((1, 2, 3), {}, 'too many positional arguments'),
        ((1,), {'c': 2}, "unexpected keyword argument 'c'"),
        (('1',), {}, "argument 'a': Expected int, got str"),
    ],
)
def test_arguments_that_do_not_fit_here_are_an_error_of_the_call(
    args: tuple[Any, ...], kwargs: dict[str, Any], reason: str
) -> None:
    kind, message = refusal_of('tests.support.tasks.add', args, kwargs)
    assert kind is UnfitHereError
    assert message.startswith("This worker's version of the task does not take these arguments: ")
    assert reason in message


@pytest.mark.parametrize('parameters', ['job_name=1', 'bad: object = print, *, other: Thing = 1'])
def test_a_newer_version_may_have_a_function_that_can_be_a_task(
    write: Write, parameters: str
) -> None:
    module = write(f'class Thing: ...\ndef f({parameters}): ...\n')
    kind, message = refusal_of(f'{module}.f')
    assert kind is UnknownHereError
    assert message.startswith("This worker's version of the task cannot be run: ")


@pytest.mark.parametrize(
    ('args', 'kwargs'),
    [
        ('ab', {}),
        ({1}, {}),
        (None, {}),
        ((), []),
        ((), {1: 2}),
        ((object(),), {}),
        ((), {'a': [object()]}),
    ],
)
def test_a_payload_that_holds_no_call_of_plain_data_is_invalid_in_every_version(
    args: Any, kwargs: Any
) -> None:
    assert refusal_of('tests.support.tasks.echo', args, kwargs)[0] is InvalidJobError

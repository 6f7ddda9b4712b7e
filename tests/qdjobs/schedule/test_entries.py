"""How periodic jobs are declared, and what is refused where it is written."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

from qdjobs import InvalidJobError, JobError, JobQueue
from qdjobs.client.call import Call
from qdjobs.client.tasks import RELAY_OUTBOX
from qdjobs.config import environment_config
from qdjobs.schedule import cron, every
from qdjobs.schedule.entries import Plan, Refused, make_calls, make_plans, plan, read_schedule
from qdjobs.schedule.rules import Cron, Every
from tests.support.tasks import add, fail

ADD = 'tests.support.tasks.add'
NOTE = 'tests.support.periodic_apps.note'


@pytest.fixture
def queue() -> JobQueue:
    return JobQueue()


Write = Callable[[str], None]


@pytest.fixture
def table(settings: pytest.MonkeyPatch, tmp_path: Path) -> Write:
    """Write the module that JOB_SCHEDULE names."""
    settings.syspath_prepend(str(tmp_path))
    settings.setenv('JOB_SCHEDULE', 'our_schedule')
    environment_config.cache_clear()

    def write(text: str) -> None:
        sys.modules.pop('our_schedule', None)
        head = 'from qdjobs.schedule import cron, every\n'
        (tmp_path / 'our_schedule.py').write_text(head + text)

    return write


def test_a_named_task_is_periodic(queue: JobQueue) -> None:
    queue.add('cleanup', NOTE, every='1h', job_queue='low')
    queue.add('report', NOTE, cron='0 3 * * *', timezone='Europe/Berlin', overlap='queue')
    queue.add('plain', NOTE)
    app = Flask('shop')
    app.config['JOB_TASK_MODULES'] = 'tests.support'
    queue.init_app(app)
    with app.app_context():
        entries = read_schedule()
        assert list(make_calls(entries)) == ['cleanup', 'report']
    assert entries['cleanup'].rule == Every(3600)
    assert entries['cleanup'].options == {'job_queue': 'low'}
    assert entries['report'].rule == Cron('0 3 * * *', 'Europe/Berlin')
    assert entries['report'].overlap == 'queue'


def test_a_name_that_is_added_again_has_the_last_rule(queue: JobQueue) -> None:
    app = Flask('shop')
    app.config['JOB_TASK_MODULES'] = 'tests.support'
    queue.init_app(app)
    queue.add('cleanup', NOTE, every='1h')
    queue.add('cleanup', NOTE)
    with app.app_context():
        assert read_schedule() == {}


def test_a_table_has_tasks_with_arguments(table: Write) -> None:
    table(
        "PERIODIC = {'sum': every('15m', job_queue='low').run('tests.support.tasks.add', 1, b=3),\n"
        "            'night': cron('0 3 * * *').run('tests.support.tasks.add', 7)}\n"
    )
    calls = make_calls(read_schedule())
    assert (calls['sum'].args, calls['sum'].kwargs) == ((1,), {'b': 3})
    assert calls['sum'].options.queue == 'low'
    assert [plan.name for plan in make_plans()] == ['sum', 'night']


def test_a_hook_sees_the_call_of_an_entry(queue: JobQueue) -> None:
    seen = []
    queue.before_enqueue(lambda call: seen.append(call.task.path))
    queue.add('cleanup', NOTE, every='1h')
    app = Flask('shop')
    app.config['JOB_TASK_MODULES'] = 'tests.support'
    queue.init_app(app)
    with app.app_context():
        make_plans()
    assert seen == [NOTE]


@pytest.fixture
def shop(queue: JobQueue) -> Iterator[None]:
    """The context of an application with a hook that refuses the task add and an outbox's relay."""

    @queue.before_enqueue
    def refuse(call: Call) -> None:
        if call.task.path in {ADD, RELAY_OUTBOX}:
            raise RuntimeError('Working outside of a request.\n\nThis typically means')

    queue.add('cleanup', NOTE, every='1h')
    app = Flask('shop')
    app.config['JOB_TASK_MODULES'] = 'tests.support'
    queue.init_app(app)
    with app.app_context():
        yield


@pytest.mark.usefixtures('shop')
def test_a_hook_that_raises_costs_one_entry() -> None:
    refused, planned = plan({'sum': every('1h').run(ADD, 1), **read_schedule()})
    assert isinstance(planned, Plan)
    assert refused == Refused(
        'sum',
        "Periodic job 'sum' is not enqueued: before_enqueue has raised RuntimeError: "
        'Working outside of a request.',
    )


@pytest.mark.usefixtures('shop')
def test_a_hook_does_not_see_the_relay_of_an_outbox() -> None:
    [planned] = plan({'qdjobs-outbox': every(5).run(RELAY_OUTBOX)})
    assert isinstance(planned, Plan)


def test_what_a_hook_adds_that_cannot_travel_costs_one_entry(queue: JobQueue) -> None:
    queue.before_enqueue(lambda call: call.meta.update(by=object()))
    app = Flask('shop')
    app.config['JOB_TASK_MODULES'] = 'tests.support'
    queue.init_app(app)
    with app.app_context():
        [refused] = plan({'sum': every('1h').run(ADD, 1)})
    assert isinstance(refused, Refused)
    assert 'InvalidJobError: job_meta' in refused.error


def test_arguments_that_are_too_large_are_refused_by_the_name_of_the_entry(
    settings: pytest.MonkeyPatch,
) -> None:
    settings.setenv('JOB_TASK_MODULES', 'tests.support')
    settings.setenv('JOB_MAX_ARGUMENTS', '1')
    environment_config.cache_clear()
    large = every('1h').run('tests.support.tasks.echo', 'x' * 1_100_000)
    with pytest.raises(InvalidJobError, match="Periodic job 'sum': The arguments of"):
        plan({'sum': large})


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        ({'every': '1h', 'cron': '0 3 * * *'}, 'exclude each other'),
        ({'overlap': 'skip'}, "needs every='1h' or cron"),
        ({'timezone': 'UTC'}, "needs every='1h' or cron"),
        ({'every': 0.1}, 'every must be whole seconds, at least one'),
        ({'every': '1h', 'overlap': 'wait'}, "overlap must be 'skip' or 'queue', not 'wait'"),
        ({'every': '1h', 'overlap': ''}, "overlap must be 'skip' or 'queue', not ''"),
        ({'cron': '0 0 30 2 *'}, 'never matches'),
        ({'every': '1h', 'job_id': 'one'}, 'job_id is for a single job'),
        ({'every': '1h', 'job_delay': '5m'}, 'job_delay is for a single job'),
        ({'every': '1h', 'job_timeout': 'long'}, 'job_timeout must be'),
        ({'every': '1h', 'job_colour': 'red'}, 'job_colour is no option'),
    ],
)
def test_a_wrong_declaration_is_refused_where_it_is_written(
    queue: JobQueue, options: dict[str, object], says: str
) -> None:
    with pytest.raises(InvalidJobError, match=re.escape(says)):
        queue.task('cleanup', **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidJobError, match=re.escape(says)):
        queue.add('cleanup', NOTE, **options)  # type: ignore[arg-type]


def test_a_function_that_needs_arguments_is_refused_by_the_queue(queue: JobQueue) -> None:
    with pytest.raises(InvalidJobError, match="missing a required argument: 'a'"):
        queue.task('sum', every='1h')(add)
    with pytest.raises(InvalidJobError, match="missing a required argument: 'a'"):
        queue.add('sum', add, every='1h')


def test_a_function_that_does_not_take_the_arguments_is_refused() -> None:
    with pytest.raises(InvalidJobError, match="unexpected keyword argument 'days'"):
        every('1h').run(fail, days=3)  # type: ignore[call-overload]


def test_an_option_among_the_arguments_is_refused() -> None:
    with pytest.raises(InvalidJobError, match='job_queue is an option: pass it to every'):
        cron('0 3 * * *').run(ADD, 1, job_queue='low')


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        ("PERIODIC = {'a': every('1h').run('tests.support.tasks.missing')}", "job 'a': "),
        ("PERIODIC = {'a': every('1h').run('os.getcwd')}", 'outside the allowed task modules'),
        ("PERIODIC = {'a': every('1h').run('tests.support.tasks.add')}", "argument: 'a'"),
        ("PERIODIC = {'a': every('1h').run('tests.support.tasks.add', 1, c=2)}", "argument 'c'"),
        ("PERIODIC = {'a': every('1h', job_queue='x').run('tests.support.tasks.add', 1)}", 'job_q'),
        ("PERIODIC = {'a': every('1h')}", 'our_schedule needs a dict PERIODIC'),
        ("PERIODIC = [every('1h').run('tests.support.tasks.add', 1)]", 'needs a dict PERIODIC'),
        ("PERIODIC = {'a b': every('1h').run('tests.support.tasks.add', 1)}", "not 'a b'"),
        ("PERIODIC = {'a': every('0.2s').run('x')}", 'JOB_SCHEDULE: our_schedule: every must be'),
        ('', 'our_schedule needs a dict PERIODIC'),
        ('1 / 0', 'JOB_SCHEDULE: importing our_schedule failed: ZeroDivisionError'),
        ('raise SystemExit(3)', 'failed: SystemExit'),
    ],
)
def test_a_wrong_table_is_one_line(table: Write, text: str, says: str) -> None:
    table(text)
    with pytest.raises(JobError) as caught:
        make_plans()
    (line,) = str(caught.value).splitlines()
    assert says in line


def test_a_table_that_does_not_exist_is_one_line(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_SCHEDULE', 'nowhere.schedule')
    environment_config.cache_clear()
    with pytest.raises(InvalidJobError, match=r"importing nowhere\.schedule failed: .*'nowhere'"):
        read_schedule()


def test_a_setting_that_is_no_module_is_refused(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_SCHEDULE', 'shop/schedule.py')
    environment_config.cache_clear()
    with pytest.raises(ValueError, match='JOB_SCHEDULE must be the dotted name of a module'):
        environment_config()


def test_a_name_of_the_table_that_the_queue_has_too_is_refused(
    queue: JobQueue, table: Write
) -> None:
    table("PERIODIC = {'sum': every('1h').run('tests.support.tasks.add', 1)}")
    queue.add('sum', ADD, every='1h')
    app = Flask('shop')
    queue.init_app(app)
    with app.app_context(), pytest.raises(InvalidJobError, match="has 'sum', which the JobQueue"):
        read_schedule()

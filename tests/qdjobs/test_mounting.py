"""What the extension adds to an application that is somebody else's, and what it leaves alone."""

import importlib
import sys
from collections.abc import Callable

import pytest
from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from libraries.job_manager import enqueue_background_job
from qdjobs import (
    InvalidJobError,
    JobError,
    JobQueue,
    PermanentJobError,
    UnknownTaskError,
    init_job_queue,
)
from qdjobs.config import get_config
from qdjobs.testing import eager_jobs
from qdjobs.web import health
from tests.support.applications import use_redis
from tests.support.tasks import fail_for_good

SECRETS = {
    'JOBS_API_TOKEN': 'api-secret',
    'METRICS_TOKEN': 'metrics-secret',
    'DASHBOARD_USERNAME': 'anna',
    'DASHBOARD_PASSWORD': 'secret',
}


def make_host(**config: str) -> Flask:
    """An application with pages of its own."""
    host = Flask('host')
    host.config.update(config)
    host.register_error_handler(404, lambda error: ('Our own page for what is not there', 404))

    @host.post('/work')
    def work() -> str:
        return enqueue_background_job('tests.support.tasks.add', 1).id

    @host.get('/crash')
    def crash() -> str:
        raise RuntimeError('an accident')

    return host


def test_an_application_gets_commands_and_an_extension_and_nothing_else() -> None:
    host = make_host()
    before = list(host.url_map.iter_rules())
    assert init_job_queue(host) is host.extensions['job_queue']
    assert list(host.url_map.iter_rules()) == before
    assert list(host.blueprints) == []
    assert list(host.cli.commands) == ['jobs']


def test_what_has_its_secret_is_mounted_where_the_host_wants_it() -> None:
    host = make_host(**SECRETS)
    JobQueue(host, '/a/jobs', dashboard_prefix='/b/rq', metrics_prefix='/c/metrics')
    assert set(host.blueprints) == {'qdjobs_api', 'qdjobs_dashboard', 'qdjobs_metrics'}
    client = host.test_client()
    for path in ('/a/jobs', '/b/rq/', '/c/metrics'):
        assert client.get(path).status_code == 401, path
    token = {'Authorization': 'Bearer metrics-secret'}
    assert b'jobs_redis_up 1.0' in client.get('/c/metrics', headers=token).data
    page = client.get('/b/rq/', auth=('anna', 'secret'))
    assert page.status_code == 200
    assert b'/b/rq/static/' in page.data
    for path in ('/api/jobs', '/rq/', '/metrics'):
        assert client.get(path).status_code == 404, path


def test_a_prefix_of_none_leaves_each_out() -> None:
    host = make_host(**SECRETS)
    JobQueue(host, None, dashboard_prefix=None, metrics_prefix=None)
    assert list(host.blueprints) == []


def test_stock_rq_dashboard_may_be_mounted_beside_ours(redis_url: str) -> None:
    rq_dashboard = importlib.import_module('rq_dashboard')
    host = make_host(**SECRETS)
    host.config['RQ_DASHBOARD_REDIS_URL'] = redis_url
    rq_dashboard.web.setup_rq_connection(host)
    host.register_blueprint(rq_dashboard.blueprint, url_prefix='/stock')
    JobQueue(host)
    client = host.test_client()
    assert b'/stock/static/' in client.get('/stock/').data
    ours = client.get('/rq/', auth=('anna', 'secret')).data
    assert b'/rq/static/' in ours
    assert b'<%=' not in ours  # the templates are ours too, without their faults
    assert b'/stock/' not in ours


def test_the_host_s_own_errors_stay_its_own() -> None:
    host = make_host(**SECRETS)
    JobQueue(host)
    client = host.test_client()
    assert client.get('/nowhere').text == 'Our own page for what is not there'
    assert client.get('/work').mimetype == 'text/html'  # 405
    assert client.get('/crash').mimetype == 'text/html'  # 500


@pytest.mark.parametrize('caught', [401, HTTPException, Exception])
def test_a_login_is_asked_for_whatever_the_host_answers_to_errors(
    caught: int | type[Exception],
) -> None:
    host = make_host(**SECRETS)
    host.register_error_handler(caught, lambda error: ('Our own login page', 302))
    JobQueue(host)
    for path, scheme in (('/api/jobs', 'Bearer'), ('/rq/', 'Basic'), ('/metrics', 'Bearer')):
        answer = host.test_client().get(path)
        assert answer.status_code == 401, path
        assert answer.headers['WWW-Authenticate'].startswith(scheme), path


def test_an_outage_is_503_and_says_when_to_come_back(settings: pytest.MonkeyPatch) -> None:
    use_redis(settings, 'redis://127.0.0.1:1/0')
    host = make_host()
    JobQueue(host)
    answer = host.test_client().post('/work')
    assert answer.status_code == 503
    assert answer.headers['Retry-After'] == '5'
    assert answer.mimetype == 'application/problem+json'


def test_any_application_mounts_liveness_and_readiness(settings: pytest.MonkeyPatch) -> None:
    host = make_host()
    JobQueue(host)
    host.register_blueprint(health)
    use_redis(settings, 'redis://127.0.0.1:1/0', host)
    assert host.test_client().get('/healthz').status_code == 200
    answer = host.test_client().get('/readyz')
    assert (answer.status_code, answer.mimetype) == (503, 'application/problem+json')


@pytest.mark.parametrize('first', [True, False])
def test_a_host_may_answer_job_errors_itself(settings: pytest.MonkeyPatch, first: bool) -> None:
    use_redis(settings, 'redis://127.0.0.1:1/0')
    host = make_host()
    if first:
        host.register_error_handler(JobError, answer_ourselves)
    JobQueue(host)
    if not first:
        host.register_error_handler(JobError, answer_ourselves)
    assert host.test_client().post('/work').text == 'Our own page for an outage'


def answer_ourselves(error: JobError) -> Response:
    return Response('Our own page for an outage', 503)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, 'qdjobs.web.metrics', raising=False)
    monkeypatch.setitem(sys.modules, 'prometheus_client', None)
    host = make_host(METRICS_TOKEN='metrics-secret')
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'qdjobs\[metrics\]'"):
        JobQueue(host)
    assert host.extensions == {}


def test_an_unknown_key_of_the_host_is_refused() -> None:
    with pytest.raises(ValueError, match=r'JOB_QUEUE, .*Did you mean JOB_QUEUES'):
        JobQueue(make_host(JOB_QUEUE='a'))


def misspell_a_path() -> str:
    return enqueue_background_job('workers.x.f').id


def misspell_an_option() -> str:
    return enqueue_background_job('tests.support.tasks.add', 1, job_dealy='5m').id


def misspell_an_option_of_all_calls() -> str:
    return JobQueue().using(job_dealy='5m').enqueue('add').id  # type: ignore[call-arg]


def call_a_task() -> str:
    fail_for_good()
    return ''


def have_a_job_fail_eagerly() -> str:
    with eager_jobs(raising=True):
        return enqueue_background_job('tests.support.tasks.fail_for_good').id


@pytest.mark.parametrize(
    ('view', 'error', 'text'),
    [
        (misspell_a_path, UnknownTaskError, "'workers.x.f' names no task"),
        (misspell_an_option, InvalidJobError, 'job_dealy is no option of a job'),
        (misspell_an_option_of_all_calls, InvalidJobError, 'job_dealy is no option of a job'),
        (call_a_task, PermanentJobError, 'the address does not exist'),
        (have_a_job_fail_eagerly, PermanentJobError, 'the address does not exist'),
    ],
    ids=lambda value: getattr(value, '__name__', ''),
)
def test_a_mistake_of_the_host_is_an_error_of_its_view(
    view: Callable[[], str],
    error: type[JobError],
    text: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    host = make_host()
    host.add_url_rule('/mistake', view_func=view)
    JobQueue(host)
    caplog.clear()
    answer = host.test_client().get('/mistake')
    assert (answer.status_code, answer.mimetype) == (500, 'text/html')
    assert text not in answer.text
    assert 'job_delay' not in answer.text
    for part in ('/mistake [GET]', f'in {view.__name__}', text):
        assert part in caplog.text, part
    for mode in ('TESTING', 'DEBUG', 'PROPAGATE_EXCEPTIONS'):
        with pytest.raises(error, match=text):
            make_propagating(host, mode).test_client().get('/mistake')


def make_propagating(host: Flask, mode: str) -> Flask:
    host.config.update({'TESTING': False, 'DEBUG': False, 'PROPAGATE_EXCEPTIONS': None, mode: True})
    return host


def test_a_call_that_a_client_may_have_made_wrong_is_logged_with_its_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    host = make_host()
    queue = JobQueue(host)
    queue.add('add', 'tests.support.tasks.add')
    host.add_url_rule('/<name>/<text>', 'call', lambda name, text: queue.enqueue(name, text).id)
    host.testing = True
    caplog.clear()
    for path in ('/nobody/1', '/add/a%0Ab'):
        assert host.test_client().get(path).status_code == 400
    name, argument = [record for record in caplog.records if record.name == 'qdjobs.web.problems']
    assert name.levelname == argument.levelname == 'WARNING'
    assert name.getMessage().startswith("GET '/nobody/1': The job is not valid: \"No task is named")
    assert argument.getMessage().startswith("GET '/add/a\\nb': The job is not valid: ")
    assert '\n' not in argument.getMessage()


def test_a_command_of_the_host_keeps_its_name() -> None:
    host = make_host()
    host.cli.command('jobs')(lambda: None)
    own = host.cli.commands['jobs']
    JobQueue(host)
    assert host.cli.commands['jobs'] is own
    assert 'doctor' in host.cli.commands['qdjobs'].commands  # type: ignore[attr-defined]


def test_a_configuration_is_read_when_the_queue_is_made() -> None:
    host = make_host(JOB_RESULT_TTL='7')
    JobQueue(host)
    host.config['JOB_RESULT_TTL'] = '8'
    with host.app_context():
        assert get_config().result_ttl == 7

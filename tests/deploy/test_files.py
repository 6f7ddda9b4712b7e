"""The files of deploy/ are valid by the tools that read them, and agree with one another."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask.testing import FlaskClient

from app import create_app
from qdjobs.config import environment_config
from tests.support.deployments import (
    COMPOSE,
    INSTALLED,
    SYSTEMD,
    Image,
    compose,
    manifests,
    pod,
    procfile,
    require_systemd_analyze,
    seconds,
    unit,
    unit_command,
)
from tests.support.processes import ROOT

UNITS = ('plotter-web.service', 'plotter-worker@.service')


def run(*command: str, cwd: Path = ROOT) -> str:
    """What a tool says that must not fail."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


# Valid; `make test-all` installs the validators


@pytest.mark.slow
def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    assert run(tool('hadolint'), 'Dockerfile') == ''


@pytest.mark.slow
def test_compose_yaml_follows_the_schema_of_compose() -> None:
    run(tool('check-jsonschema'), '--builtin-schema', 'vendor.compose-spec', str(COMPOSE))


@pytest.mark.slow
@pytest.mark.parametrize('version', ['1.30', '1.37'])
def test_the_manifests_follow_the_schemas_of_kubernetes(version: str) -> None:
    import kubernetes_validate

    for resource in manifests().values():
        kubernetes_validate.validate(resource, version, strict=True)


def test_systemd_finds_nothing_in_the_units(tmp_path: Path) -> None:
    analyze = require_systemd_analyze()
    for name in ('gunicorn', 'rq'):  # which must be there
        (tmp_path / name).touch(0o755)
    for name in UNITS:
        text = (SYSTEMD / name).read_text()
        (tmp_path / name).write_text(text.replace(INSTALLED, f'{tmp_path}/'))
    assert run(analyze, 'verify', *(f'./{name}' for name in UNITS), cwd=tmp_path) == ''
    assert run(analyze, 'verify', './plotter-worker@3.service', cwd=tmp_path) == ''
    # 10 is a service without any restriction.
    run(analyze, 'security', '--offline=true', '--threshold=20', *UNITS, cwd=SYSTEMD)


# In agreement


def test_every_deployment_starts_the_same_web_process() -> None:
    command = Image().command
    web = procfile()['web'].removeprefix('[ -n "$PORT" ] || unset PORT; ')
    listening = '${HOST:+--bind $HOST:${PORT:-8000}} '
    arenas = f'MALLOC_ARENA_MAX={Image().environment["MALLOC_ARENA_MAX"]}'
    assert shlex.split(web.replace(listening, '')) == ['exec', 'env', arenas, *command]
    assert arenas in str(unit('plotter-web.service')['Environment'])
    assert unit_command('plotter-web.service') == command
    assert 'command' not in compose()['web']
    [container] = pod('plotter-web')['containers']
    assert not {'command', 'args'} & set(container)


def test_every_deployment_starts_the_same_worker() -> None:
    command = compose()['worker']['command']
    assert procfile()['worker'].endswith(f' {shlex.join(command)}')
    assert unit_command('plotter-worker@.service') == command
    [container] = pod('plotter-worker')['containers']
    assert container['args'] == command
    app = Image().environment['JOB_APP']
    assert f' JOB_APP={app} ' in procfile()['worker']
    assert f'JOB_APP={app} ' in str(unit('plotter-worker@.service')['Environment'])


def test_every_worker_requeues_its_job_before_it_is_killed() -> None:
    worker, units = compose()['worker'], unit('plotter-worker@.service')
    [of_unit] = re.findall(r'JOB_SHUTDOWN_GRACE=(\d+)', str(units['Environment']))
    config = manifests()['ConfigMap', 'plotter']['data']
    for grace, limit in (
        (worker['environment']['JOB_SHUTDOWN_GRACE'], seconds(worker['stop_grace_period'])),
        (of_unit, units['TimeoutStopSec'][0]),
        (config['JOB_SHUTDOWN_GRACE'], pod('plotter-worker')['terminationGracePeriodSeconds']),
    ):
        assert int(grace) + 15 <= int(limit)


def test_every_web_process_has_longer_than_gunicorn_gives_a_request() -> None:
    [container] = pod('plotter-web')['containers']
    pause = int(container['lifecycle']['preStop']['exec']['command'][1])
    for limit in (
        seconds(compose()['web']['stop_grace_period']),
        int(unit('plotter-web.service')['TimeoutStopSec'][0]),
        pod('plotter-web')['terminationGracePeriodSeconds'] - pause,
    ):
        assert limit > 30


def test_redis_that_is_away_takes_no_web_process_away(client: FlaskClient) -> None:
    [container] = pod('plotter-web')['containers']
    paths = {
        probe: container[f'{probe}Probe']['httpGet']['path']
        for probe in ('liveness', 'readiness', 'startup')
    }
    assert paths == {'liveness': '/healthz', 'readiness': '/healthz', 'startup': '/readyz'}
    assert '/healthz' in str(Image().health_check)


def test_the_autoscaler_reads_a_metric_that_there_is(settings: pytest.MonkeyPatch) -> None:
    [metric] = manifests()['HorizontalPodAutoscaler', 'plotter-worker']['spec']['metrics']
    wanted: dict[str, Any] = metric['external']['metric']
    settings.setenv('METRICS_TOKEN', 'token')
    environment_config.cache_clear()
    answer = create_app().test_client().get('/metrics', headers={'Authorization': 'Bearer token'})
    [queues] = wanted['selector']['matchExpressions']
    for value in queues['values']:
        assert f'\n{wanted["name"]}{{{queues["key"]}="{value}"}} ' in answer.text


@pytest.mark.parametrize('name', ['plotter-web', 'plotter-worker'])
def test_what_belongs_to_a_deployment_names_it(name: str) -> None:
    found = manifests()
    spec = found['Deployment', name]['spec']
    labels = spec['template']['metadata']['labels']
    assert spec['selector']['matchLabels'] == labels
    assert found['PodDisruptionBudget', name]['spec']['selector']['matchLabels'] == labels
    if name == 'plotter-web':
        assert found['Service', name]['spec']['selector'] == labels
    else:
        target = found['HorizontalPodAutoscaler', name]['spec']['scaleTargetRef']
        assert (target['kind'], target['name']) == ('Deployment', name)
    files = next(volume for volume in pod(name)['volumes'] if volume['name'] == 'files')
    assert ('PersistentVolumeClaim', files['persistentVolumeClaim']['claimName']) in found
    [container] = pod(name)['containers']
    for source in container['envFrom']:
        [(kind, reference)] = source.items()
        assert (kind[0].upper() + kind[1:-3], reference['name']) in found


@pytest.mark.parametrize('name', ['deploy/app.env.example', '.env.example'])
def test_the_example_of_an_environment_is_one(settings: pytest.MonkeyPatch, name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    for line in lines:
        if (line and not line.startswith('# ')) or re.match(r'# [A-Z_]+=', line):
            variable, _, value = line.removeprefix('# ').partition('=')
            settings.setenv(variable, value)
    environment_config.cache_clear()
    create_app()


def test_a_password_means_itself_for_compose_as_for_systemd() -> None:
    for service in ('web', 'worker'):
        assert compose()[service]['env_file'] == [{'path': 'app.env', 'format': 'raw'}]


def test_no_secret_is_in_the_repository_or_in_the_image() -> None:
    ignored = (ROOT / '.gitignore').read_text().splitlines()
    assert {'.env', 'deploy/app.env', 'deploy/kubernetes/secret.yaml'} <= set(ignored)
    assert (ROOT / '.dockerignore').read_text().splitlines()[1] == '*'


def test_the_volumes_of_compose_are_declared() -> None:
    whole = yaml.safe_load(COMPOSE.read_text())
    used = {
        volume.partition(':')[0]
        for service in whole['services'].values()
        for volume in service['volumes']
    }
    assert used == set(whole['volumes'])

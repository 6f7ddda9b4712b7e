"""URLs that name Sentinels, and what becomes of wrong ones."""

from typing import Any

import pytest
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

from qdjobs import JobRedis
from qdjobs.config import _read
from qdjobs.sentinel import add_options, connection_options, show_address

FULL = 'redis+sentinel://anna:p%40ss@one,two:26380,[::1]:7/jobs/3?sentinel_password=s&client_name=x'


def test_a_url_has_the_sentinels_the_service_and_both_logins() -> None:
    options = connection_options(FULL)
    assert options['sentinels'] == (('one', 26379), ('two', 26380), ('::1', 7))
    assert (options['service'], options['db']) == ('jobs', 3)
    assert (options['username'], options['password']) == ('anna', 'p@ss')
    assert options['sentinel_options'] == (('password', 's'),)
    assert options['client_name'] == 'x'


def test_tls_is_for_both() -> None:
    options = connection_options('rediss+sentinel://one/jobs?ssl_ca_certs=a.pem')
    assert issubclass(options['connection_class'], SSLConnection)
    assert options['sentinel_options'] == (('ssl', True), ('ssl_ca_certs', 'a.pem'))


@pytest.mark.parametrize(
    ('url', 'kind'),
    [
        ('redis://h', Connection),
        ('rediss://h', SSLConnection),
        ('unix:///s', UnixDomainSocketConnection),
    ],
)
def test_other_urls_are_those_of_redis_py(url: str, kind: type) -> None:
    assert connection_options(url).get('connection_class', Connection) is kind


@pytest.mark.parametrize(
    'url',
    [
        'redis+sentinel://one',
        'redis+sentinel:///jobs',
        'redis+sentinel://one,,two/jobs',
        'redis+sentinel://one:port/jobs',
        'redis+sentinel://one:99999/jobs',
        'redis+sentinel://one/jobs/first',
        'redis+sentinel://one/jobs/0/1',
        'redis+sentinel://one/jobs?sentinel_pasword=secret',
        'redis+sentinel://one/jobs?retries=3',
        'redis+sentinel://one/jobs?ssl_cert_reqs=none',
        'rediss+sentinel://one/jobs?ssl_cert_reqs=never',
        'sentinel://one/jobs',
        'redis-sentinel://one/jobs',
    ],
)
def test_a_wrong_url_is_refused_with_the_form_of_a_right_one(url: str) -> None:
    with pytest.raises(ValueError, match=r'redis\+sentinel://user:password@host1,host2') as caught:
        _read({'REDIS_URL': url})
    assert 'secret' not in str(caught.value)


def test_options_can_be_added_to_a_url_that_somebody_else_sets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {'REDIS_URL': 'rediss://h?client_name=x', 'JOB_REDIS_OPTIONS': 'ssl_cert_reqs=none'}
    url = 'rediss://h?client_name=x&ssl_cert_reqs=none'
    assert _read(settings).redis_url == url
    monkeypatch.setenv('JOB_REDIS_OPTIONS', settings['JOB_REDIS_OPTIONS'])
    pool = JobRedis.from_url(settings['REDIS_URL']).connection_pool
    assert pool.connection_kwargs['ssl_cert_reqs'] == 'none'


def test_options_are_added_once() -> None:
    """`flask jobs worker` passes on both the URL with the options, and the options."""
    url = add_options('redis://h?db=1', 'client_name=x&db=2')
    assert url == 'redis://h?db=1&client_name=x'
    assert add_options(url, 'client_name=x&db=2') == url


@pytest.mark.parametrize('options', ['ssl_cert_reqs=never', 'nonsense', 'a=b'])
def test_wrong_options_are_refused(options: str) -> None:
    with pytest.raises(ValueError, match='JOB_REDIS_OPTIONS'):
        _read({'REDIS_URL': 'rediss://h', 'JOB_REDIS_OPTIONS': options})


@pytest.mark.parametrize(
    ('url', 'shown'),
    [
        (FULL, 'jobs of the Sentinels one,two:26380,[::1]:7'),
        ('redis://a:b@h/0', 'h:6379'),
        ('redis://', 'localhost:6379'),
        ('redis:///3', 'localhost:6379'),
        ('unix:///s', '/s'),
    ],
)
def test_no_password_is_shown(url: str, shown: str) -> None:
    assert show_address(url) == shown


def test_a_client_can_be_made_of_any_url() -> None:
    client: Any = JobRedis.from_url('redis://h:1/2')
    assert type(client) is JobRedis
    assert client.connection_pool.connection_kwargs['port'] == 1

"""A real S3 server in a process of its own, and what its objects and uploads are."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import Request, urlopen

import pytest

from libraries.files import Place, Store
from libraries.files.store import file_system
from tests.support.proxy import Proxy, proxy_to

SECRET = 'hush-hush-hush'
BUCKET = 'plots'
# Without it we are a stranger, who may read nothing.
SIGNED = 'AWS4-HMAC-SHA256 Credential=anna/20200101/us-east-1/s3/aws4_request, Signature=0'

SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.disable()
server = ThreadedMotoServer('127.0.0.1', 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()  # until the tests end, however they do
"""


class ObjectStore:
    """The server, by plain HTTP: it checks no signature until `refuse_all`."""

    def __init__(self, address: str) -> None:
        self.address = address

    @property
    def environment(self) -> dict[str, str]:
        """What the client of a process needs to know."""
        return {
            'AWS_ENDPOINT_URL_S3': self.address,
            'AWS_ACCESS_KEY_ID': 'anna',
            'AWS_SECRET_ACCESS_KEY': SECRET,
            'AWS_DEFAULT_REGION': 'us-east-1',
        }

    def empty(self) -> None:
        """An empty bucket, and no other."""
        self._request('POST', '/moto-api/reset')
        self._request('PUT', f'/{BUCKET}')

    def refuse_all(self) -> None:
        """From the next request on no key is known, until `allow_all`."""
        self._request('POST', '/moto-api/reset-auth', b'0')

    def allow_all(self) -> None:
        self._request('POST', '/moto-api/reset-auth', b'inf')

    def put(self, key: str, content: bytes) -> None:
        self._request('PUT', f'/{BUCKET}/{key}', content)

    def get(self, key: str) -> bytes:
        return self._request('GET', f'/{BUCKET}/{key}')

    def delete(self, key: str) -> None:
        self._request('DELETE', f'/{BUCKET}/{key}')

    def keys(self) -> list[str]:
        listed = self._request('GET', f'/{BUCKET}?list-type=2').decode()
        return re.findall('<Key>(.*?)</Key>', listed)

    def uploads(self) -> int:
        """How many multipart uploads have begun and not ended."""
        return self._request('GET', f'/{BUCKET}?uploads').count(b'<Upload>')

    def _request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = Request(self.address + path, data=body, method=method)
        request.add_header('Content-Type', 'application/octet-stream')
        request.add_header('Authorization', SIGNED)
        with urlopen(request, timeout=60) as answer:
            content: bytes = answer.read()
            return content


@contextmanager
def running_store() -> Iterator[ObjectStore]:
    """Run a server until the block ends."""
    command = [sys.executable, '-c', SERVER]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip().isdigit():
                    break
            else:
                raise RuntimeError('There is no S3 server: `make test-all` installs it.')
            yield ObjectStore(f'http://127.0.0.1:{int(line)}')
        finally:
            process.kill()


def use_store(settings: pytest.MonkeyPatch, store: ObjectStore) -> None:
    """From now on this test has its folders in the bucket of a store."""
    for name, value in store.environment.items():
        settings.setenv(name, value)
    settings.setenv('UPLOAD_DIR', f's3://{BUCKET}/up')
    settings.setenv('OUTPUT_DIR', f's3://{BUCKET}/out')


@contextmanager
def moved(settings: pytest.MonkeyPatch, address: str) -> Iterator[None]:
    """In the block the store of this test is at another address."""
    with settings.context() as patch:
        patch.setenv('AWS_ENDPOINT_URL_S3', address)
        file_system.cache_clear()
        try:
            yield
        finally:
            file_system.cache_clear()


@contextmanager
def behind_proxy(settings: pytest.MonkeyPatch, store: ObjectStore) -> Iterator[Proxy]:
    """In the block the store of this test is behind a proxy that fails on demand."""
    with proxy_to(store.address) as proxy:
        address = proxy.url.replace('redis://', 'http://').removesuffix('/0')
        with moved(settings, address):
            yield proxy


def version_of(place: Place, name: str) -> str:
    """The version of an object, or 'missing'."""
    assert isinstance(place, Store)
    try:
        return place.look(name).version
    except FileNotFoundError:
        return 'missing'

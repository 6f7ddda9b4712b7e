"""Files in an object store: the same names, whole or not at all, errors that say no secret."""

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import traceback
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from libraries.files import (
    StorageError,
    open_output,
    open_upload,
    output_dir,
    outputs,
    read_file_settings,
    upload_copy,
    uploads,
    write_output,
)
from libraries.files.store import BLOCK, MOST_AT_ONCE, PART, Found, Store, connect
from qdjobs.server import free_port
from tests.support.object_store import SECRET, ObjectStore, behind_proxy, moved, version_of
from tests.support.processes import ROOT, eventually

pytestmark = pytest.mark.slow  # `make test-all` installs the server and its client

# More than s3fs puts in one request.
LARGE = 2 * PART + 1


@pytest.fixture
def memory(settings: pytest.MonkeyPatch) -> None:
    """Both folders in the memory of this process."""
    filesystem, _ = connect('memory://')
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = ['']
    settings.setenv('UPLOAD_DIR', 'memory://up')
    settings.setenv('OUTPUT_DIR', 'memory://out')


# Names


@pytest.mark.parametrize(
    ('name', 'key'),
    [
        ('a.svg', 'a.svg'),
        ('sub/deep/a.svg', 'sub/deep/a.svg'),
        ('./a//b', 'a/b'),
        ('a b', 'a b'),
        ('Zürich-日本.svg', 'Zürich-日本.svg'),
        ('a#b', 'a#b'),
        ('a?b=c&d', 'a?b=c&d'),
        ('%2e%2e/a', '%2e%2e/a'),
        ('a%2fb+c', 'a%2fb+c'),
        ('*[x]', '*[x]'),
        ('~', '~'),
        ('a.' + 'x' * 253, 'a.' + 'x' * 253),
    ],
)
def test_a_name_is_the_key_of_one_object(object_store: ObjectStore, name: str, key: str) -> None:
    assert str(write_output(name, 'x')) == key
    assert object_store.get(quote(f'out/{key}')) == b'x'
    assert len(object_store.keys()) == 1
    assert version_of(outputs(), name) != 'missing'
    with outputs().open(name) as file:
        assert file.read() == b'x'
    outputs().remove(name)
    assert object_store.keys() == []


@pytest.mark.parametrize(
    ('name', 'why'),
    [
        ('../a', r'must not contain "\.\."'),
        ('a/../b', r'must not contain "\.\."'),
        ('/etc/passwd', 'lies outside OUTPUT_DIR'),
        ('/plots/out/a', 'lies outside OUTPUT_DIR'),
        ('.', 'lies outside OUTPUT_DIR'),
        ('', 'must be printable text'),
        ('a\nb', 'must be printable text'),
        ('a\0b', 'must be printable text'),
        ('x' * 256, 'more than 255 bytes'),
        ('x' * 255 + '/' + 'é' * 100 + '/' + ('x' * 200 + '/') * 3, 'more than 1024 bytes'),
        ('s3://plots/out/a', 'must not contain "://"'),
        ('a?versionId=b', r'must not contain "\?versionId="'),
    ],
)
def test_a_name_that_cannot_be_a_key_is_refused(memory: None, name: str, why: str) -> None:
    for use in (write_output, lambda name, _: version_of(outputs(), name)):
        with pytest.raises(ValueError, match=why):
            use(name, 'x')
    with pytest.raises(ValueError, match=why.replace('OUTPUT', 'UPLOAD')), open_upload(name):
        pass


@pytest.mark.parametrize('end', ['', '/', '//'])
def test_a_slash_at_the_end_of_the_url_says_nothing(
    object_store: ObjectStore, settings: pytest.MonkeyPatch, end: str
) -> None:
    settings.setenv('OUTPUT_DIR', f's3://plots{end}')
    write_output('sub/a', 'x')
    assert object_store.keys() == ['sub/a']


def test_a_local_path_is_refused(memory: None) -> None:
    with pytest.raises(ValueError, match='OUTPUT_DIR is no local folder'):
        output_dir()


# Settings


@pytest.mark.parametrize(
    ('url', 'why'),
    [
        ('s3:/bucket', 'looks like a URL and is none'),
        ('s3:bucket', 'looks like a URL and is none'),
        ('S3://bucket', 'looks like a URL and is none'),
        ('simplecache::s3://bucket', 'looks like a URL and is none'),
        ('s3://', 'names no bucket'),
        ('s3:///', 'names no bucket'),
        ('s3:///prefix', 'two slashes in a row'),
        ('s3://bucket//prefix', 'two slashes in a row'),
        ('s3://bucket/../other', r'no "\.\."'),
        ('s3://bucket/./a', r'no "\.\."'),
        ('s3://bucket?versionId=1', r'no "\.\."'),
        ('s3://bucket#a', r'no "\.\."'),
        ('s3://bucket\a', r'no "\.\."'),
        ('s3://bucket\n', 'looks like a URL and is none'),
        ('s3://bucket/prefix ', 'without quotes or spaces around it'),
        (' s3://bucket', 'without quotes or spaces around it'),
        ('"s3://bucket"', 'without quotes or spaces around it'),
        ("'s3://bucket/prefix'", 'without quotes or spaces around it'),
        (' S3://bucket', 'the scheme in lower case'),
        ('file:///srv/folder ', 'without quotes or spaces around it'),
        (f'"s3://anna:{SECRET}@bucket"', 'looks like a URL and is none'),
        (f's3://anna:{SECRET}@bucket', 'must contain no password'),
        (f's3:/anna:{SECRET}@bucket', 'looks like a URL and is none'),
        ('nonsense://bucket', 'begins with nonsense://, which is not known'),
        ('gs://bucket', 'package is missing: pip install gcsfs'),
        ('abfs://container@account.dfs.core.windows.net/a', 'pip install adlfs'),
        ('file://folder', 'file:///path/to/folder'),
        ('file:///', 'file:///path/to/folder'),
        ('file:/srv/folder', 'looks like a URL and is none'),
    ],
)
@pytest.mark.parametrize('setting', ['UPLOAD_DIR', 'OUTPUT_DIR'])
def test_a_bad_url_is_one_sentence(setting: str, url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        read_file_settings({setting: url})
    assert str(caught.value).startswith(setting)
    assert SECRET not in ''.join(traceback.format_exception(caught.value))
    assert '\n' not in str(caught.value)


def test_without_fsspec_a_url_says_what_to_install(settings: pytest.MonkeyPatch) -> None:
    settings.setitem(sys.modules, 'fsspec', None)
    with pytest.raises(ValueError, match=r'OUTPUT_DIR is a URL, .* missing: pip install s3fs'):
        read_file_settings({'OUTPUT_DIR': 's3://some-bucket'})


def test_a_local_folder_needs_no_fsspec() -> None:
    code = 'import sys; from libraries.files import write_output as write; write("a", "x"); '
    shown = run(code + "print({'fsspec', 's3fs'} & set(sys.modules))")
    assert shown == 'set()\n'


def run(code: str) -> str:
    command = [sys.executable, '-c', code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_a_file_url_is_the_local_folder(settings: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings.setenv('OUTPUT_DIR', f'file://{tmp_path}/out put/')
    assert write_output('a', 'x') == output_dir() / 'a' == tmp_path / 'out put' / 'a'
    (tmp_path / 'out put' / 'link').symlink_to(tmp_path)
    with pytest.raises(ValueError, match='is a symbolic link'):
        write_output('link/b', 'x')


# Whole or not at all


def write_half(name: str, error: type[BaseException], size: int) -> None:
    with open_output(name) as file:
        file.write(b'x' * size)
        raise error


@pytest.mark.parametrize('before', [None, b'old'])
@pytest.mark.parametrize('size', [1, LARGE])
def test_an_error_in_the_block_leaves_the_name_as_it_was(
    object_store: ObjectStore, before: bytes | None, size: int
) -> None:
    if before is not None:
        object_store.put('out/a', before)
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            write_half('a', error, size)
    assert object_store.keys() == ([] if before is None else ['out/a'])
    assert before is None or object_store.get('out/a') == before
    assert object_store.uploads() == 0


def test_an_object_appears_after_the_block(object_store: ObjectStore) -> None:
    with open_output('a.svg') as file:
        file.write(b'x')
        file.flush()
        assert object_store.keys() == []
    assert object_store.get('out/a.svg') == b'x'
    write_output('a.svg', 'other')
    assert object_store.get('out/a.svg') == b'other'


def test_a_large_file_arrives_as_it_is(object_store: ObjectStore) -> None:
    content = bytes(range(256)) * (LARGE // 256 + 1)
    write_output('a', content)
    assert object_store.get('out/a') == content
    assert object_store.uploads() == 0


def test_an_upload_that_fails_half_way_leaves_the_name_as_it_was(
    object_store: ObjectStore, settings: pytest.MonkeyPatch
) -> None:
    object_store.put('out/a', b'old')

    refused: list[int] = []

    def refuse_what_follows() -> bool:
        if not refused and object_store.uploads():
            refused.append(1)
            object_store.refuse_all()
        return False

    with behind_proxy(settings, object_store) as proxy:
        proxy.hang_when = refuse_what_follows
        try:
            with pytest.raises(StorageError, match='OUTPUT_DIR: s3://plots/out refuses access'):
                write_output('a', b'x' * LARGE)
        finally:
            object_store.allow_all()
    assert object_store.get('out/a') == b'old'
    assert object_store.keys() == ['out/a']


KILLED = """
from libraries.files import open_output
with open_output('a') as file:
    file.write(b'x' * {size})
"""


@pytest.mark.parametrize('before', [None, b'old'])
def test_a_process_killed_during_the_upload_leaves_the_name_as_it_was(
    object_store: ObjectStore, settings: pytest.MonkeyPatch, before: bytes | None
) -> None:
    if before is not None:
        object_store.put('out/a', before)
    with behind_proxy(settings, object_store) as proxy:
        proxy.hang_when = lambda: object_store.uploads() == 1  # the parts never arrive
        code = KILLED.format(size=LARGE)
        with subprocess.Popen([sys.executable, '-c', code], cwd=ROOT) as process:
            try:
                eventually(lambda: proxy.hang)
            finally:
                process.kill()
        assert process.returncode == -signal.SIGKILL
    assert object_store.keys() == ([] if before is None else ['out/a'])
    assert before is None or object_store.get('out/a') == before


class TimeOut(Exception):
    """What a job's time-out raises in the thread of its task, wherever that is."""


def test_a_time_out_ends_an_upload(object_store: ObjectStore, settings: pytest.MonkeyPatch) -> None:
    """So that it does not go on beside the next attempt."""

    def end(*_: object) -> None:
        raise TimeOut

    def end_and_hang() -> bool:
        if not proxy.hang:
            os.kill(os.getpid(), signal.SIGUSR1)
        return True

    def is_uploading() -> bool:
        return any('_put_file' in repr(task) for task in asyncio.all_tasks(loop))

    before = signal.signal(signal.SIGUSR1, end)
    try:
        with behind_proxy(settings, object_store) as proxy:
            assert version_of(outputs(), 'a') == 'missing'
            loop = connect('s3://plots')[0].loop
            proxy.hang_when = end_and_hang
            with pytest.raises(TimeOut):
                write_output('a', 'x')
            eventually(lambda: not is_uploading(), timeout=10)  # a request itself takes 15 s
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert object_store.keys() == []


def test_where_puts_are_not_whole_a_rename_makes_them_so(memory: None) -> None:
    seen: list[list[str]] = []
    filesystem, _ = connect('memory://out')
    write_output('sub/a', 'old')
    with open_output('sub/a') as file:
        file.write(b'new')
        seen.append(filesystem.find('/out'))
    assert seen == [['/out/sub/a']]
    assert filesystem.cat_file('/out/sub/a') == b'new'
    assert filesystem.find('/out') == ['/out/sub/a']


# Reading


def test_an_upload_is_read_as_a_file_and_as_a_copy(object_store: ObjectStore) -> None:
    content = bytes(range(256)) * (3 * BLOCK // 256)
    object_store.put('up/sub/a.csv', content)
    with open_upload('sub/a.csv') as file:
        assert file.read(2) == content[:2]
        assert file.seek(2 * BLOCK - 5) == 2 * BLOCK - 5
        assert file.read(10) == content[2 * BLOCK - 5 : 2 * BLOCK + 5]
        assert file.seek(0, 2) == len(content)
        assert file.read() == b''
        file.seek(0)
        assert file.read() == content
    with upload_copy('sub/a.csv') as path:
        assert path.suffix == '.csv'
        assert path.read_bytes() == content
    assert not path.exists()


@pytest.mark.parametrize('name', ['no-such-file', 'sub'])
def test_a_missing_file_is_missing(object_store: ObjectStore, name: str) -> None:
    object_store.put('up/sub/a', b'x')
    for use in (open_upload, upload_copy):
        with pytest.raises(FileNotFoundError, match=r'no such file in s3://plots/up \(UPLOAD_DIR'):
            use(name).__enter__()
    assert version_of(uploads(), name) == 'missing'


def test_two_versions_of_an_object_are_never_mixed(object_store: ObjectStore) -> None:
    object_store.put('up/a', b'x' * 3 * BLOCK)
    with open_upload('a') as file:
        assert file.read(1) == b'x'
        object_store.put('up/a', b'y' * 3 * BLOCK)
        with pytest.raises(StorageError, match='has changed while it was read'):
            file.read()


@pytest.mark.parametrize(('size', 'after'), [(1, 2), (3 * BLOCK, 3 * BLOCK), (3 * BLOCK, 1)])
def test_an_object_that_is_replaced_before_its_first_block_is_not_read(
    object_store: ObjectStore, size: int, after: int
) -> None:
    object_store.put('up/a', b'x' * size)
    with open_upload('a') as file:
        file.seek(size - 1)
        object_store.put('up/a', b'y' * after)
        with pytest.raises(StorageError, match='has changed while it was read'):
            file.read()


@pytest.mark.parametrize('later', [1, 2])
@pytest.mark.parametrize('more', [1 - LARGE, 0, 1])
def test_a_copy_of_an_object_that_is_replaced_meanwhile_is_an_error(
    object_store: ObjectStore, settings: pytest.MonkeyPatch, later: int, more: int
) -> None:
    """After it has been found, or before it is compared."""
    object_store.put('up/a', b'x' * LARGE)
    look = Store.look
    found_by: list[int] = []  # requests, of which a busy machine has the client repeat some
    replaced: list[int] = []

    def look_and_count(*arguments: Any) -> Found:
        found = look(*arguments)
        found_by.append(proxy.requests)
        return found

    settings.setattr(Store, 'look', look_and_count)
    with behind_proxy(settings, object_store) as proxy:

        def replace() -> bool:
            # Two requests may be counted before either is looked at.
            if found_by and not replaced and proxy.requests >= found_by[0] + later:
                replaced.append(1)
                object_store.put('up/a', b'y' * (LARGE + more))
            return False

        proxy.hang_when = replace
        with pytest.raises(StorageError, match='in s3://plots/up has changed while'):
            upload_copy('a').__enter__()
    # A request that had gone on would now warn that its connection is not closed.
    gc.collect()


def test_a_copy_has_few_parts_in_memory(object_store: ObjectStore) -> None:
    """Twice as many as are read at once, since s3fs drops them late, and some of them in pieces."""
    at_once = MOST_AT_ONCE * PART
    object_store.put('up/a', bytes(4 * at_once))
    connect('s3://plots')  # its modules are no part of the measure
    tracemalloc.start()
    try:
        with upload_copy('a') as path:
            assert path.stat().st_size == 4 * at_once
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3.2 * at_once


def test_the_state_of_an_object_changes_with_it(object_store: ObjectStore) -> None:
    object_store.put('up/a', b'x')
    before = version_of(uploads(), 'a')
    assert version_of(uploads(), 'a') == before
    object_store.put('up/a', b'y')
    assert version_of(uploads(), 'a') != before


# Errors


Use = Callable[[], Any]
USES: dict[str, Use] = {
    'write': lambda: write_output('a', 'x'),
    'write much': lambda: write_output('a', b'x' * LARGE),
    'read': lambda: open_upload('a').__enter__(),
    'copy': lambda: upload_copy('a').__enter__(),
    'look': lambda: version_of(uploads(), 'a'),
    'remove': lambda: outputs().remove('a'),
}


def said(use: Use, caplog: pytest.LogCaptureFixture) -> str:
    """What an error says, its traceback and the log included; without a secret."""
    with caplog.at_level(logging.INFO), pytest.raises(StorageError) as caught:
        use()
    everything = ''.join(traceback.format_exception(caught.value)) + caplog.text
    assert SECRET not in everything
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize('use', USES.values(), ids=USES)
def test_a_missing_bucket_is_one_sentence(
    object_store: ObjectStore,
    settings: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    use: Use,
) -> None:
    settings.setenv('UPLOAD_DIR', 's3://no-such-bucket/up')
    settings.setenv('OUTPUT_DIR', 's3://no-such-bucket/out')
    assert (
        'PUT_DIR: the bucket of s3://no-such-bucket/out' in (text := said(use, caplog))
        or 'UPLOAD_DIR: the bucket of s3://no-such-bucket/up does not exist.' in text
    )


@pytest.mark.parametrize('use', USES.values(), ids=USES)
def test_wrong_credentials_are_one_sentence(
    object_store: ObjectStore, caplog: pytest.LogCaptureFixture, use: Use
) -> None:
    object_store.refuse_all()
    try:
        text = said(use, caplog)
    finally:
        object_store.allow_all()
    assert 'refuses access' in text
    assert 'check the credentials' in text
    assert text.startswith(('UPLOAD_DIR: s3://plots/up', 'OUTPUT_DIR: s3://plots/out'))


def test_no_credentials_are_one_sentence(
    object_store: ObjectStore,
    settings: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'):
        settings.delenv(name)
    settings.setenv('AWS_EC2_METADATA_DISABLED', 'true')
    settings.setenv('HOME', str(tmp_path))
    with moved(settings, object_store.address):
        assert 'refuses access (NoCredentialsError)' in said(USES['write'], caplog)


def test_a_store_that_is_away_is_one_sentence(
    object_store: ObjectStore, settings: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with moved(settings, f'http://127.0.0.1:{free_port()}'):
        text = said(lambda: outputs(0.5).open('a').__enter__(), caplog)
    assert text == 'OUTPUT_DIR: s3://plots/out has not answered within 0.5 s.'

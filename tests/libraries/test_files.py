"""Names lead to files inside the folders, and files appear whole or not at all."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libraries.files import (
    Folder,
    Store,
    open_output,
    output_dir,
    outputs,
    read_file_settings,
    upload_dir,
    uploads,
    write_output,
)
from libraries.files import folder as folder_module
from libraries.files.beneath import new_file
from libraries.job_manager import enqueue_background_job
from qdjobs.config import environment_config
from qdjobs.errors import InvalidJobError, PermanentJobError
from tests.support.disk import full_disk
from tests.support.permissions import permissions_count
from tests.support.processes import ROOT, eventually
from workers.data_tasks import process_file
from workers.image_tasks import process_image
from workers.svg_tasks import generate_complex_svg

Finder = Callable[[str], Path]


def upload_path(name: str) -> Path:
    return upload_dir() / uploads().name_of(name)


def output_path(name: str) -> Path:
    return output_dir() / outputs().name_of(name)


@pytest.fixture(params=[upload_path, output_path])
def find(request: pytest.FixtureRequest) -> Finder:
    finder: Finder = request.param
    return finder


@pytest.fixture
def folder(find: Finder) -> Path:
    """The folder, already there, that the finder's paths lie in."""
    folder = upload_dir() if find is upload_path else output_dir()
    folder.mkdir()
    return folder


@pytest.fixture
def output() -> Path:
    folder = output_dir()
    folder.mkdir()
    return folder


# Names


@pytest.mark.parametrize(
    'name',
    [
        'a.svg',
        'sub/deep/a.svg',
        './a.svg',
        '..a',
        'a..b',
        '...',
        '.hidden',
        'a b',
        'Zürich-日本.svg',
        '~',
        '$HOME',
        '-rf',
        '*',
        "a'; drop",
        'x' * 255,
        'é' * 127,
    ],
)
def test_a_name_stands_for_a_file_in_the_folder(find: Finder, folder: Path, name: str) -> None:
    path = find(name)
    assert path == folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('x')
    assert find(name) == path


def test_an_absolute_path_inside_stands_for_itself(find: Finder, folder: Path) -> None:
    assert find(str(folder / 'sub' / 'a.svg')) == folder / 'sub' / 'a.svg'


@pytest.mark.parametrize('depth', [1, 2, 20])
def test_a_path_that_goes_up_is_refused(find: Finder, folder: Path, depth: int) -> None:
    for name in (
        '../' * depth + 'etc/passwd',
        'sub/' + '../' * depth + 'x',
        '..',
        'a/..',
        'a/../b',
    ):
        with pytest.raises(ValueError, match=r'must not contain "\.\."'):
            find(name)
    with pytest.raises(ValueError, match=r'must not contain "\.\."'):
        find(f'{folder}/../{folder.name}/a')


@pytest.mark.parametrize('name', ['/etc/passwd', '/', '//etc/passwd', '/proc/self/environ'])
def test_an_absolute_path_outside_is_refused(find: Finder, name: str) -> None:
    with pytest.raises(ValueError, match=r'lies outside (UPLOAD|OUTPUT)_DIR'):
        find(name)


DRAWING = {'width': 40, 'height': 40, 'pattern_type': 'grid'}
every_task_with_names = pytest.mark.parametrize(
    ('task', 'arguments'),
    [
        ('svg_tasks.generate_complex_svg', lambda name: DRAWING | {'output_filename': name}),
        (
            'svg_tasks.batch_generate_svgs',
            lambda name: {
                'drawings': [DRAWING | {'output_filename': each} for each in ('a', name)]
            },
        ),
        ('data_tasks.process_file', lambda name: {'file_path': name}),
        ('file_tasks.process_batch', lambda name: {'file_list': ['a.csv', name]}),
        (
            'image_tasks.process_image',
            lambda name: {'image_path': name, 'operations': ['optimize']},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
Call = Callable[[str], dict[str, Any]]


@every_task_with_names
def test_a_name_that_no_file_can_have_is_refused_at_the_call(task: str, arguments: Call) -> None:
    for name, why in {
        '../x': r'must not contain "\.\."',
        'a/..': r'must not contain "\.\."',
        '/etc/passwd': r'lies outside (UPLOAD|OUTPUT)_DIR',
        '': 'must be printable text',
        'x' * 256: 'has more than 255 bytes',
    }.items():
        with pytest.raises(InvalidJobError, match=f'workers.{task}: .*{why}'):
            enqueue_background_job(f'workers.{task}', **arguments(name))


@every_task_with_names
def test_no_file_is_looked_at_at_the_call_and_a_wrong_setting_is_the_workers(
    task: str, arguments: Call, settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert enqueue_background_job(f'workers.{task}', **arguments('missing.csv'))
    for folder in (upload_dir(), output_dir()):
        folder.mkdir()
        (folder / 'link.csv').symlink_to(tmp_path)
    assert enqueue_background_job(f'workers.{task}', **arguments('link.csv'))
    for setting in ('UPLOAD_DIR', 'OUTPUT_DIR'):
        settings.setenv(setting, 's3:/no-url')
    assert enqueue_background_job(f'workers.{task}', **arguments('a.svg'))


def test_a_path_is_left_to_the_worker_if_only_it_has_the_setting(
    settings: pytest.MonkeyPatch,
) -> None:
    settings.delenv('UPLOAD_DIR')
    for name in ('/shared/uploads/a.csv', 's3://bucket/a.csv'):
        assert enqueue_background_job('workers.data_tasks.process_file', name)
    with pytest.raises(InvalidJobError, match='must not contain'):
        enqueue_background_job('workers.data_tasks.process_file', '../a.csv')


def test_a_file_name_that_a_batch_has_twice_is_refused_at_the_call() -> None:
    drawings = [DRAWING | {'output_filename': 'same.svg'}] * 2
    with pytest.raises(InvalidJobError, match=r'more than one drawing .* same\.svg'):
        enqueue_background_job('workers.svg_tasks.batch_generate_svgs', drawings)


def folder_at(setting: str, path: Path) -> Folder:
    return Folder(setting, path, path)


def test_the_name_that_web_code_has_for_uploads_is_their_folder(
    settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    up = tmp_path / 'up'
    for name in ('/uploads/a.csv', '/uploads//a.csv', '/uploads/sub/a.csv'):
        below = name.replace('//', '/').removeprefix('/uploads/')
        assert folder_at('UPLOAD_DIR', up).result(name) == up / below
        assert Store('UPLOAD_DIR', 's3://bucket/up').name_of(name) == below
        assert folder_at('UPLOAD_DIR', Path('/uploads')).result(name) == Path('/uploads', below)
    inner = folder_at('UPLOAD_DIR', Path('/uploads/shop'))
    assert inner.result('/uploads/shop/a.csv') == inner.result('/uploads/a.csv')
    for place in (folder_at('OUTPUT_DIR', up), Store('OUTPUT_DIR', 's3://bucket/up')):
        with pytest.raises(ValueError, match='lies outside OUTPUT_DIR'):
            place.name_of('/uploads/a.csv')


@pytest.mark.parametrize(
    'name', ['/uploads', '/uploads/', '//uploads/a', '/uploads-2/a', '/Uploads/a', '/up/uploads/a']
)
def test_no_other_absolute_path_is_that_of_uploads(tmp_path: Path, name: str) -> None:
    for place in (folder_at('UPLOAD_DIR', tmp_path), Store('UPLOAD_DIR', 's3://bucket/up')):
        with pytest.raises(ValueError, match='lies outside UPLOAD_DIR'):
            place.name_of(name)


def test_a_link_below_uploads_does_not_lead_out(tmp_path: Path) -> None:
    (tmp_path / 'up').mkdir()
    (tmp_path / 'up' / 'link').symlink_to('/etc/passwd')
    with pytest.raises(ValueError, match='is a symbolic link'):
        folder_at('UPLOAD_DIR', tmp_path / 'up').name_of('/uploads/link')


def test_a_folder_whose_name_begins_alike_is_outside(find: Finder, folder: Path) -> None:
    with pytest.raises(ValueError, match='lies outside'):
        find(f'{folder}-other/a.svg')


def test_the_two_folders_are_apart(output: Path) -> None:
    with pytest.raises(ValueError, match='lies outside UPLOAD_DIR'):
        uploads().name_of(str(output / 'a.svg'))


@pytest.mark.parametrize(
    'name',
    ['', ' ', '\t', '\0', 'a\0b', 'a\nb', 'a\x1bb', 'a\u2028b', 'a\u202eb', '\udc80'],
    ids=ascii,
)
def test_a_name_that_is_no_text_to_print_is_refused(find: Finder, name: str) -> None:
    with pytest.raises(ValueError, match='must be printable text'):
        find(name)


@pytest.mark.parametrize('name', [None, 1, b'a', Path('a'), ['a']])
def test_a_name_is_a_string(find: Finder, name: Any) -> None:
    with pytest.raises(ValueError, match='must be printable text'):
        find(name)


@pytest.mark.parametrize(
    'name', ['x' * 256, 'x' * 300, 'é' * 128, 'sub/' + 'x' * 300, 'x' * 300 + '/a']
)
def test_a_name_of_more_than_255_bytes_is_refused(find: Finder, name: str) -> None:
    with pytest.raises(ValueError, match='more than 255 bytes'):
        find(name)


@pytest.mark.parametrize(
    'parts', [2_000, 2_040, 3_000, 10_000, pytest.param(100_000, marks=pytest.mark.slow)]
)
def test_a_path_that_no_system_takes_is_refused(find: Finder, folder: Path, parts: int) -> None:
    with pytest.raises(ValueError, match='name'):
        find('x/' * parts + 'y' * 200)


@pytest.mark.parametrize('name', ['.', './', 'sub', 'sub/', 'sub/.'])
def test_a_folder_is_no_file(find: Finder, folder: Path, name: str) -> None:
    (folder / 'sub').mkdir()
    with pytest.raises(ValueError, match=r'is a folder|lies outside'):
        find(name)


# Symbolic links


def test_no_link_is_followed(find: Finder, folder: Path, tmp_path: Path) -> None:
    (folder / 'sub').mkdir()
    (folder / 'sub' / 'a').write_text('a')
    targets: dict[str, Path | str] = {
        'outside': tmp_path / 'secret',
        'relative': '../secret',
        'dangling': tmp_path / 'not-yet-there',
        'chain': 'outside',
        'loop': 'loop',
        'inside': 'sub/a',
    }
    for name, target in targets.items():
        (folder / name).symlink_to(target)
        for spelling in (name, str(folder / name)):
            with pytest.raises(ValueError, match=f"'{name}' is a symbolic link, and links are not"):
                find(spelling)


@pytest.mark.parametrize('target', ['/', '..', 'sub', 'link'])
def test_no_link_to_a_folder_is_followed(find: Finder, folder: Path, target: str) -> None:
    (folder / 'sub').mkdir()
    (folder / 'link').symlink_to(target)
    for name in ('link', 'link/a', 'link/sub/a'):
        with pytest.raises(ValueError, match="'link' is a symbolic link, and links are not"):
            find(name)


def test_nothing_is_written_through_a_link(output: Path, tmp_path: Path) -> None:
    (output / 'link').symlink_to(tmp_path)
    with pytest.raises(ValueError, match='is a symbolic link'):
        write_output('link/made', 'x')
    assert not (tmp_path / 'made').exists()


def test_the_folder_itself_may_be_a_link(settings: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'link').symlink_to('disk')
    settings.setenv('OUTPUT_DIR', str(tmp_path / 'link'))
    environment_config.cache_clear()
    assert output_path('a') == output_path(str(tmp_path / 'link' / 'a')) == tmp_path / 'disk' / 'a'
    assert write_output(str(tmp_path / 'link' / 'a'), 'x') == tmp_path / 'disk' / 'a'


# Whole or not at all


@pytest.mark.parametrize('content', ['Zürich\n', 'Zürich\n'.encode(), b'', '', b'\r\n\0', 'x\r\n'])
def test_a_file_is_written_as_it_is(output: Path, content: str | bytes) -> None:
    assert write_output('sub/a', content) == output / 'sub' / 'a'
    assert (output / 'sub' / 'a').read_bytes() == (
        content if isinstance(content, bytes) else content.encode()
    )


@pytest.mark.parametrize('name', ['x' * 255, 'é' * 127])
def test_the_longest_name_can_be_written(output: Path, name: str) -> None:
    write_output(name, 'x')
    assert os.listdir(output) == [name]


def test_a_file_is_replaced_and_nothing_else_stays(output: Path) -> None:
    write_output('a', 'a long first text')
    write_output('a', 'short')
    assert (output / 'a').read_text() == 'short'
    assert os.listdir(output) == ['a']


def test_the_file_stands_under_its_name_only_after_the_block(output: Path) -> None:
    with open_output('a') as file:
        file.write(b'x')
        file.flush()
        assert not (output / 'a').exists()
    assert (output / 'a').read_bytes() == b'x'


def test_who_reads_the_old_file_keeps_the_old_file(output: Path) -> None:
    write_output('a', 'old')
    with (output / 'a').open() as reader:
        write_output('a', 'new')
        assert reader.read() == 'old'


def write_half(name: str, error: type[BaseException]) -> None:
    with open_output(name) as file:
        file.write(b'half')
        raise error


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize('before', [None, 'old'])
def test_an_error_in_the_block_leaves_the_name_as_it_was(
    output: Path, error: type[BaseException], before: str | None
) -> None:
    if before is not None:
        write_output('a', before)
    with pytest.raises(error):
        write_half('a', error)
    assert [path.read_text() for path in output.iterdir()] == ([] if before is None else [before])


def test_a_block_that_closes_the_file_is_an_error_that_leaves_nothing(output: Path) -> None:
    with pytest.raises(ValueError, match='closed file'), open_output('a') as file:
        file.close()
    assert os.listdir(output) == []


def test_text_that_cannot_be_encoded_leaves_nothing(output: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_output('a', '\ud800')
    assert os.listdir(output) == []


def test_two_that_write_the_same_name_do_not_mix(output: Path) -> None:
    with open_output('a') as first, open_output('a') as second:
        first.write(b'first')
        second.write(b'second')
    assert (output / 'a').read_bytes() == b'first'
    assert os.listdir(output) == ['a']


KILLED = """
import time
from libraries.files import open_output
with open_output('a') as file:
    file.write(b'half')
    file.flush()
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize('before', [None, 'old'])
def test_a_process_killed_half_way_leaves_the_name_as_it_was(
    output: Path, before: str | None
) -> None:
    if before is not None:
        write_output('a', before)
    with subprocess.Popen([sys.executable, '-c', KILLED], cwd=ROOT) as process:
        try:  # It is half-way once its bytes stand in some file beside the name.
            eventually(lambda: b'half' in [path.read_bytes() for path in output.iterdir()])
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL
    assert (output / 'a').exists() is (before is not None)
    assert before is None or (output / 'a').read_text() == before
    write_output('a', 'new')
    assert (output / 'a').read_text() == 'new'


@pytest.mark.parametrize('before', [None, 'old'])
@pytest.mark.parametrize('size', [5001, 100_000])
def test_a_full_disk_leaves_the_name_as_it_was(output: Path, size: int, before: str | None) -> None:
    if before is not None:
        write_output('a', before)
    with full_disk(5000), pytest.raises(OSError, match='File too large'):
        write_output('a', b'x' * size)
    assert [path.read_text() for path in output.iterdir()] == ([] if before is None else [before])


def test_a_file_that_just_fits_is_written(output: Path) -> None:
    with full_disk(5000):
        write_output('a', b'x' * 5000)
    assert (output / 'a').stat().st_size == 5000


@pytest.mark.parametrize('umask', [0o022, 0o027, 0o077, 0o002])
def test_the_mode_of_a_file_honours_the_umask(output: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        write_output('a', 'x')
    finally:
        os.umask(old)
    assert (output / 'a').stat().st_mode & 0o777 == 0o666 & ~umask


# What is in the way


def test_a_name_that_leads_through_a_file_names_the_file_in_the_way(output: Path) -> None:
    write_output('a.svg', 'x')
    with pytest.raises(ValueError, match=r"'a.svg/b.svg': 'a.svg' is a file, not a folder"):
        write_output('a.svg/b.svg', 'x')
    with pytest.raises(PermanentJobError, match=r"'a\.svg' is a file"):
        generate_complex_svg(20, 20, 'spiral', 'a.svg/deep/b.svg')
    outputs().remove('a.svg/b.svg')
    assert [path.name for path in output.iterdir()] == ['a.svg']


@pytest.mark.parametrize('setting', ['UPLOAD_DIR', 'OUTPUT_DIR'])
@pytest.mark.parametrize(
    ('path', 'why'),
    [
        ('loop', 'cannot be a folder: .*loop: Too many levels of symbolic links'),
        ('file', 'must name a folder: .*/file is a file, or lies below one'),
        ('file/sub', 'must name a folder: .*/file/sub is a file, or lies below one'),
        ('x' * 300, 'cannot be a folder: .*: File name too long'),
    ],
)
def test_a_setting_that_cannot_be_a_folder_is_refused_at_the_start(
    tmp_path: Path, setting: str, path: str, why: str
) -> None:
    (tmp_path / 'file').touch()
    (tmp_path / 'loop').symlink_to('loop')
    with pytest.raises(ValueError, match=f'{setting} {why}'):
        read_file_settings({setting: str(tmp_path / path)})


def test_a_file_is_written_though_its_old_empty_folder_is_removed_meanwhile(
    output: Path, settings: pytest.MonkeyPatch
) -> None:
    (output / 'old').mkdir()

    def remove_first(handle: int, name: str) -> int:
        settings.setattr(folder_module, 'new_file', new_file)
        (output / 'old').rmdir()
        return new_file(handle, name)

    settings.setattr(folder_module, 'new_file', remove_first)
    write_output('old/a', 'x')
    assert (output / 'old' / 'a').read_text() == 'x'


@pytest.mark.parametrize(
    ('name', 'task', 'options'),
    [('a.png', process_image, {'operations': ['grayscale']}), ('a.csv', process_file, {})],
)
def test_an_upload_that_may_not_be_read_is_one_sentence_for_good(
    name: str, task: Callable[..., str], options: dict[str, Any]
) -> None:
    upload_dir().mkdir()
    (upload_dir() / name).touch(0o000)
    with permissions_count(), pytest.raises(PermanentJobError) as refusal:
        task(name, **options)
    assert str(refusal.value) == f"'{name}': the worker may not read it: fix its permissions."

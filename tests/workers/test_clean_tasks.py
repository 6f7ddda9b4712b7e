"""Old files are removed from OUTPUT_DIR, and nothing else."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from app import create_app
from libraries.files import output_dir, write_output
from qdjobs.config import environment_config
from tests.support.applications import shared_app
from tests.support.exchange import exchanges
from workers.clean_tasks import DAY, clean_outputs

DRAWING = f'{uuid4()}.svg'
PART = '.0123456789abcdef.part'


def make(name: str, days: float) -> Path:
    """An output file that has not changed for so many days, nor has its folder."""
    write_output(name, 'x' * 10)
    path = output_dir() / name
    for each in (path, path.parent):
        age(each, days)
    return path


def age(path: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(path, (then, then))


def left() -> list[str]:
    return sorted(str(path.relative_to(output_dir())) for path in output_dir().rglob('*'))


def test_drawings_of_the_artboard_go_after_a_week_and_all_else_stays() -> None:
    for name, days in {
        DRAWING: 7.1,
        f'{uuid4()}.svg': 8,
        'artboard_7.svg': 8,
        f'artboard_{"x_-Y" * 16}.svg': 8,
        PART: 1.1,
        f'images/{PART}': 2,
        '.doctor-0123456789abcdef.txt': 2,
    }.items():
        make(name, days)
    kept = [
        'artboard_.svg',
        'artboard_a.b.svg',
        'cards/artboard_7.svg',
        f'cards/{DRAWING}',
        'images/a.png',
        f'{DRAWING}.csv',
        '.part',
    ]
    for name in kept:
        make(name, 1000)
    (output_dir() / 'empty').mkdir()
    age(output_dir() / 'empty', 1000)
    assert clean_outputs() == {'files': 7, 'size': 70, 'folders': 0}
    assert left() == sorted([*kept, 'cards', 'images', 'empty'])


def test_no_date_is_so_old_that_a_file_goes_without_a_setting() -> None:
    write_output('before-1970.csv', 'x')
    os.utime(output_dir() / 'before-1970.csv', (-5, -5))
    (output_dir() / 'empty').mkdir()
    os.utime(output_dir() / 'empty', (-5, -5))
    assert clean_outputs() == {'files': 0, 'size': 0, 'folders': 0}
    assert left() == ['before-1970.csv', 'empty']


def test_young_drawings_and_files_that_are_being_written_stay() -> None:
    young = [DRAWING, PART]
    make(DRAWING, 6.9)
    make(PART, 0.9)
    assert clean_outputs() == {'files': 0, 'size': 0, 'folders': 0}
    assert left() == sorted(young)


@pytest.mark.parametrize(('days', 'is_kept'), [('2', False), ('4', True)])
def test_drawings_are_kept_for_as_long_as_the_setting_says(
    settings: pytest.MonkeyPatch, days: str, is_kept: bool
) -> None:
    settings.setenv('DRAWING_KEEP_DAYS', days)
    make(DRAWING, 3)
    clean_outputs()
    assert left() == ([DRAWING] if is_kept else [])


def test_with_output_keep_days_all_old_files_go_and_folders_that_are_empty(
    settings: pytest.MonkeyPatch,
) -> None:
    settings.setenv('OUTPUT_KEEP_DAYS', '30')
    make('a/deep/old.csv', 31)
    make('b/old.csv', 31)
    make('b/new.csv', 29)
    make('old.svg', 31)
    make(DRAWING, 31)
    (output_dir() / 'just-made').mkdir()
    age(output_dir() / 'a', 31)
    age(output_dir() / 'b', 31)
    assert clean_outputs() == {'files': 4, 'size': 40, 'folders': 2}
    assert left() == ['b', 'b/new.csv', 'just-made']


def test_links_and_what_they_lead_to_stay(settings: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings.setenv('OUTPUT_KEEP_DAYS', '1')
    output_dir().mkdir()
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    (elsewhere / 'a').touch()
    age(elsewhere / 'a', 9)
    (output_dir() / 'folder').symlink_to(elsewhere)
    (output_dir() / 'file').symlink_to(elsewhere / 'a')
    clean_outputs()
    assert left() == ['file', 'folder']
    assert (elsewhere / 'a').exists()


def test_nothing_outside_is_removed_whenever_a_folder_is_exchanged(
    settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings.setenv('OUTPUT_KEEP_DAYS', '1')
    elsewhere = tmp_path / 'elsewhere'
    (elsewhere / 'empty').mkdir(parents=True)
    (elsewhere / 'a').touch()
    for name in ('a', 'empty'):
        age(elsewhere / name, 9)
    make('sub/young', 0)  # so that the folder stays
    for _ in exchanges(output_dir() / 'sub', elsewhere):
        with suppress(ValueError):
            make('sub/a', 9)
        clean_outputs()
        assert sorted(os.listdir(elsewhere)) == ['a', 'empty']


def test_a_folder_that_is_not_there_is_clean() -> None:
    assert clean_outputs() == {'files': 0, 'size': 0, 'folders': 0}


def test_a_store_is_left_alone(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('OUTPUT_DIR', 'memory://out')
    assert clean_outputs() == {'files': 0, 'size': 0, 'folders': 0}


def test_what_cannot_be_removed_is_logged_and_stops_nothing(
    settings: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings.setenv('OUTPUT_KEEP_DAYS', '1')
    make('a', 9)
    make('b', 9)
    unlink = os.unlink

    def refuse_one(name: str, *, dir_fd: int) -> None:
        if name == 'a':
            raise PermissionError(1, 'Operation not permitted')
        unlink(name, dir_fd=dir_fd)

    settings.setattr(os, 'unlink', refuse_one)
    assert clean_outputs()['files'] == 1
    assert left() == ['a']
    assert 'Cannot remove the old file a in' in caplog.text


def test_workers_clean_every_hour(settings: pytest.MonkeyPatch) -> None:
    environment_config.cache_clear()
    shown = shared_app(create_app).test_cli_runner().invoke(args=['jobs', 'schedule', '--json'])
    [entry] = json.loads(shown.stdout)['schedule']
    assert (entry['name'], entry['rule']) == ('clean_outputs', 'every 1h')
    assert entry['task'] == 'workers.clean_tasks.clean_outputs'

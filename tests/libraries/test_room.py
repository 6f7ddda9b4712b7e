"""OUTPUT_DIR has room up to OUTPUT_MAX_SIZE; its size is measured now and then."""

import os
from pathlib import Path
from typing import Any

import pytest

from libraries.files import (
    NoRoomError,
    output_dir,
    require_room,
    room,
    write_output,
)
from libraries.files.room import measure
from tests.support.exchange import exchanges


@pytest.fixture(autouse=True)
def fresh(settings: pytest.MonkeyPatch) -> None:
    settings.setattr(room, '_measured', {})
    settings.setenv('OUTPUT_MAX_SIZE', '1')


def test_the_size_is_that_of_all_files_and_of_no_other(tmp_path: Path) -> None:
    write_output('a', 'x' * 10)
    write_output('sub/deep/b', 'x' * 100)
    write_output('sub/c', '')
    (tmp_path / 'large').write_text('x' * 1000)
    (output_dir() / 'link').symlink_to(tmp_path / 'large')
    (output_dir() / 'sub' / 'link').symlink_to(tmp_path)
    os.mkfifo(output_dir() / 'pipe')
    assert measure(output_dir()) == 110


def test_what_may_not_be_read_is_not_measured_and_logged(
    settings: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By a web process, for instance, whose worker writes as another user."""
    write_output('a', 'x' * 10)
    write_output('closed/b', 'x' * 100)
    really_open = os.open

    def refuse_one(path: str, *arguments: Any, **more: Any) -> int:
        if path == 'closed':  # nothing is forbidden to root
            raise PermissionError(13, 'Permission denied')
        return really_open(path, *arguments, **more)

    settings.setattr(os, 'open', refuse_one)
    assert measure(output_dir()) == 10
    assert f'Cannot look into {output_dir() / "closed"}: ' in caplog.text


def test_a_folder_that_is_not_there_has_room() -> None:
    require_room()


def test_there_is_room_below_the_limit_and_none_from_there_on(settings: pytest.MonkeyPatch) -> None:
    settings.setattr(room, 'INTERVAL', 0.0)
    settings.setattr(room, 'SHARE', 0)
    write_output('a', 'x' * 999_999)
    require_room()
    write_output('b', 'x')
    with pytest.raises(NoRoomError, match=r'OUTPUT_DIR, .*, has 1 MB .* OUTPUT_MAX_SIZE is 1: '):
        require_room()
    (output_dir() / 'b').unlink()
    require_room()


def test_the_size_is_not_measured_for_each_request(settings: pytest.MonkeyPatch) -> None:
    measured: list[Path] = []

    def count(root: Path) -> int:
        measured.append(root)
        return 0

    settings.setattr(room, 'measure', count)
    for _ in range(100):
        require_room()
    assert measured == [output_dir()]


def test_a_store_always_has_room(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('OUTPUT_DIR', 'memory://out')
    write_output('a', 'x' * 2_000_000)
    require_room()


def test_no_folder_outside_is_measured_whenever_one_is_exchanged(tmp_path: Path) -> None:
    write_output('sub/a', 'x' * 10)
    (tmp_path / 'outside').mkdir()
    (tmp_path / 'outside' / 'b').write_text('x' * 1000)
    for _ in exchanges(output_dir() / 'sub', tmp_path / 'outside'):
        assert measure(output_dir()) in (0, 10)

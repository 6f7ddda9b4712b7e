"""OUTPUT_DIR has room up to OUTPUT_MAX_SIZE; its size is measured now and then."""

import os
from pathlib import Path
from typing import Any

import pytest

from libraries.files import (
    NoRoomError,
    open_output,
    output_dir,
    require_room,
    room,
    write_output,
)
from libraries.files.beneath import walk
from libraries.files.room import measure
from tests.support.exchange import exchanges
from tests.support.permissions import permissions_count


@pytest.fixture(autouse=True)
def fresh(settings: pytest.MonkeyPatch) -> None:
    settings.setattr(room, '_measured', {})
    settings.setenv('OUTPUT_MAX_SIZE', '1')


def on_disk(name: str) -> int:
    return (output_dir() / name).stat().st_blocks * 512


def test_the_size_is_that_of_all_files_and_of_no_other(tmp_path: Path) -> None:
    write_output('a', 'x' * 10)
    write_output('sub/deep/b', 'x' * 100_000)
    write_output('sub/c', '')
    (tmp_path / 'large').write_text('x' * 1000)
    (output_dir() / 'link').symlink_to(tmp_path / 'large')
    (output_dir() / 'sub' / 'link').symlink_to(tmp_path)
    os.mkfifo(output_dir() / 'pipe')
    assert measure(output_dir()) == on_disk('a') + on_disk('sub/deep/b') >= 100_000


def test_a_hole_in_a_file_takes_no_room() -> None:
    with open_output('sparse') as file:
        file.truncate(20_000_000_000)
    require_room()


def test_what_may_not_be_read_is_not_measured_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By a web process, for instance, whose worker writes as another user."""
    write_output('a', 'x' * 10)
    modes = {'closed': 0o000, 'listed': 0o444, 'entered': 0o311}
    for folder in modes:
        for name in ('b', 'c'):
            write_output(f'{folder}/{name}', 'x' * 100)
    for folder, mode in modes.items():
        (output_dir() / folder).chmod(mode)
    with permissions_count():
        assert measure(output_dir()) == on_disk('a')
        require_room()
    for folder in modes:
        assert caplog.text.count(f'Cannot look into {output_dir() / folder}: ') == 2
    assert len(caplog.records) == 6


def test_the_walk_goes_on_beside_a_folder_that_disappears_under_it() -> None:
    for name in ('a/one/x', 'a/two/x', 'b/x'):
        write_output(name, 'x')
    found = []
    for _, path, _ in walk(output_dir()):
        found.append(str(path))
        if path.name == 'x' and path.parts[0] == 'a' and not (output_dir() / 'moved').exists():
            (output_dir() / path.parent).rename(output_dir() / 'moved')
    assert sorted(found) == ['a', 'a/one', 'a/one/x', 'a/two', 'a/two/x', 'b', 'b/x']


def test_measuring_a_folder_in_a_folder_in_a_folder_opens_each_once(
    settings: pytest.MonkeyPatch,
) -> None:
    depth, opened, most = 300, 0, 0
    write_output(f'{"a/" * depth}b', 'x')
    really_open = os.open

    def count(*arguments: Any, **more: Any) -> int:
        nonlocal opened, most
        handle = really_open(*arguments, **more)
        opened, most = opened + 1, max(most, handle)
        return handle

    lowest = os.dup(0)  # the lowest number that is free
    os.close(lowest)
    settings.setattr(os, 'open', count)
    assert measure(output_dir()) == on_disk(f'{"a/" * depth}b')
    assert opened < 3 * depth
    assert most < lowest + 10  # however deep, few are open at a time


def test_a_folder_that_is_not_there_has_room() -> None:
    require_room()


def test_there_is_room_below_the_limit_and_none_from_there_on(settings: pytest.MonkeyPatch) -> None:
    settings.setattr(room, 'INTERVAL', 0.0)
    settings.setattr(room, 'SHARE', 0)
    write_output('a', 'x' * 900_000)
    require_room()
    write_output('b', 'x' * 200_000)
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
    size = on_disk('sub/a')
    (tmp_path / 'outside').mkdir()
    (tmp_path / 'outside' / 'b').write_text('x' * 100_000)
    for _ in exchanges(output_dir() / 'sub', tmp_path / 'outside'):
        assert measure(output_dir()) in (0, size)

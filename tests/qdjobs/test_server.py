"""The embedded Valkey: one server in a folder, and one line for what cannot be."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from qdjobs.server import embedded_redis, free_port, main


def test_a_folder_has_one_server(tmp_path: Path) -> None:
    """Two would write into one append-only file."""
    data = tmp_path / 'data'
    with embedded_redis(data_dir=data):
        with (
            pytest.raises(OSError, match='Another server has its data in'),
            embedded_redis(data_dir=data),
        ):
            pass
        second = CliRunner().invoke(main, ['--port', str(free_port()), '--data-dir', str(data)])
        assert second.exit_code == 1
        assert second.output.startswith('Error: Another server has its data in')
    with embedded_redis(data_dir=data):  # the folder is free again
        pass


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (('--port', '99999'), '1<=x<=65535'),
        (('--port', '0'), '1<=x<=65535'),
        (('--data-dir', __file__), 'is a file'),
    ],
)
def test_a_wrong_option_is_a_usage_error(arguments: tuple[str, ...], says: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert says in done.output

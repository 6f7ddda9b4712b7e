"""The bounds that are settings."""

import pytest

from app import create_app
from libraries.limits import LIMITS
from tests.support.processes import ROOT


@pytest.mark.parametrize('setting', LIMITS)
@pytest.mark.parametrize('value', ['0', '-1', 'many', '1.5', '٣'])
def test_an_invalid_bound_stops_the_application(
    settings: pytest.MonkeyPatch, setting: str, value: str
) -> None:
    settings.setenv(setting, value)
    with pytest.raises(ValueError, match=f'{setting} must be a whole number from (1|200) on'):
        create_app()


def test_an_engine_needs_memory_to_start(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('TABLE_MAX_MEMORY', '199')
    with pytest.raises(ValueError, match=r"TABLE_MAX_MEMORY must be .* from 200 on, not '199'"):
        create_app()


def test_every_bound_is_documented_with_its_default() -> None:
    operations = (ROOT / 'docs/operations.md').read_text()
    for setting, default in LIMITS.items():
        [row] = [line for line in operations.splitlines() if f'`{setting}`' in line]
        assert str(default or 'none') in row, setting

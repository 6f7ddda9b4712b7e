"""The bounds that are settings."""

import pytest

from app import create_app
from libraries.limits import LIMITS


@pytest.mark.parametrize('setting', LIMITS)
@pytest.mark.parametrize('value', ['0', '-1', 'many', '1.5', '٣'])
def test_an_invalid_bound_stops_the_application(
    settings: pytest.MonkeyPatch, setting: str, value: str
) -> None:
    settings.setenv(setting, value)
    with pytest.raises(ValueError, match=f'{setting} must be a whole number from 1 on'):
        create_app()

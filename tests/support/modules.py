"""A package of task modules that a test writes."""

import sys
from pathlib import Path

import pytest

from qdjobs.config import environment_config


def use_modules(settings: pytest.MonkeyPatch, folder: Path, **modules: str) -> None:
    """Allow a package `clinic` of these modules."""
    for name, source in {'__init__': '', **modules}.items():
        path = folder / 'clinic' / f'{name.replace("__in__", "/")}.py'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    for name in [name for name in sys.modules if name.split('.')[0] == 'clinic']:
        del sys.modules[name]
    settings.syspath_prepend(str(folder))
    settings.setenv('JOB_TASK_MODULES', 'clinic')
    environment_config.cache_clear()

"""Name the module that Python runs as a script, which has the name `__main__` here only."""

import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from flask import Flask

SCRIPT = '__main__'


def script_module() -> str | None:
    """Return the name by which a worker imports the script that was started.

    None if it has none: a console script, code on standard input, `python -m` of a package.
    """
    main = sys.modules[SCRIPT]
    if (spec := getattr(main, '__spec__', None)) is not None:  # python -m
        return None if spec.name.endswith(SCRIPT) else str(spec.name)
    return _name_of(getattr(main, '__file__', None) or '')


@cache
def _name_of(file: str) -> str | None:
    """Return the dotted name of a file of Python, as `flask --app` finds it."""
    path = Path(file).absolute()
    names, folder = [path.stem], path.parent
    while (folder / '__init__.py').is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    name = '.'.join(names)
    return name if path.suffix == '.py' and is_importable(name) else None


def is_importable(module: str) -> bool:
    """Return whether JOB_TASK_MODULES can list a module of this name."""
    return all(part.isidentifier() for part in module.split('.'))


def script_imported_twice() -> str | None:
    """Return the name of the script if it was imported a second time, under that name."""
    name = script_module()
    other = sys.modules.get(name) if name else None
    return None if other in (None, sys.modules[SCRIPT]) else name


def imported_twice(name: str) -> str:
    """Return what is wrong with a script that was imported twice, and what to do about it."""
    return (
        f'The script was imported a second time, as {name!r}, so there are two queues: start it by '
        f'`flask --app {name} run`, or put the queue into a module of its own.'
    )


def loaded_module(name: str) -> ModuleType | None:
    """Return an imported module. A script is not imported a second time, with a second queue."""
    return sys.modules[SCRIPT] if name == script_module() else sys.modules.get(name)


def own_module(app: Flask) -> str | None:
    """Return the name of the one file that an application is made in; None for a package."""
    name = script_module() if app.import_name == SCRIPT else app.import_name
    module = loaded_module(name) if name and is_importable(name) else None
    return None if module is None or hasattr(module, '__path__') else name

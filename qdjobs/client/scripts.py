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
    is_importable = path.suffix == '.py' and all(name.isidentifier() for name in names)
    return '.'.join(names) if is_importable else None


def loaded_module(name: str) -> ModuleType | None:
    """Return an imported module. A script is not imported a second time, with a second queue."""
    return sys.modules[SCRIPT] if name == script_module() else sys.modules.get(name)


def own_module(app: Flask) -> str | None:
    """Return the name of the one file that an application is made in; None for a package."""
    name = script_module() if app.import_name == SCRIPT else app.import_name
    module = loaded_module(name) if name else None
    return None if module is None or hasattr(module, '__path__') else name

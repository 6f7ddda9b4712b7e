"""Imports modules, and records what they do meanwhile. For a process of its own.

What a module does while others are imported by it is theirs: they may read the environment.
"""

import importlib
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

ACTS = ('os.', 'shutil.', 'socket.', 'subprocess.', 'tempfile.')  # audit events
LOCALE = ('LANGUAGE', 'LC_ALL', 'LC_MESSAGES', 'LANG')  # which click reads for its own messages


def main(*modules: str) -> None:
    """Write, as one JSON object, what each of the modules did that did anything."""
    watch = Watch({name.partition('.')[0] for name in modules})
    for name in modules:
        importlib.import_module(name)
    watch.enough = True
    if logging.root.handlers:
        watch.acts.setdefault('logging', []).append('root has handlers')
    if threading.active_count() > 1:
        watch.acts.setdefault('threading', []).append('a thread runs')
    sys.stdout.write(json.dumps(watch.acts))


class Watch:
    """Records every socket and every file that is written, and whatever else our modules do."""

    def __init__(self, packages: set[str]) -> None:
        self.acts: dict[str, list[str]] = {}
        self.enough = False
        self._packages = packages
        sys.addaudithook(self._see)
        watch = self

        class Environment(type(os.environ)):  # type: ignore[misc]
            def __getitem__(self, key: Any) -> Any:
                if key not in LOCALE:
                    watch._note(f'reads {key} of the environment')
                return super().__getitem__(key)

            def __iter__(self) -> Iterator[Any]:
                watch._note('reads the environment')
                keys: Iterator[Any] = super().__iter__()
                return keys

        os.environ.__class__ = os.environb.__class__ = Environment
        os.getcwd = self._getcwd  # of which there is no audit event

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.enough:
            return
        if event == 'open':
            path, _, flags = arguments
            if flags & os.O_ACCMODE:
                self._note(f'writes {path}', anyone=True)
            elif (module := importing(sys._getframe())) and not is_beside(path, module):
                self._note(f'reads {path}')
        elif event.startswith(ACTS):
            self._note(f'{event} {arguments}', anyone=event.startswith('socket.'))

    def _getcwd(self, getcwd: Any = os.getcwd) -> str:
        self._note('reads the working directory')
        return str(getcwd())

    def _note(self, act: str, anyone: bool = False) -> None:
        module = importing(sys._getframe())
        name = module['__name__'] if module else ''
        if not self.enough and (anyone or name.partition('.')[0] in self._packages):
            self.acts.setdefault(name, []).append(act)


def importing(frame: FrameType | None) -> dict[str, Any] | None:
    """The globals of the module whose code acts at import; None for the import system itself."""
    while frame is not None and 'importlib' not in frame.f_code.co_filename:
        if frame.f_code.co_name == '<module>':
            return frame.f_globals
        frame = frame.f_back
    return None


def is_beside(path: Any, module: dict[str, Any]) -> bool:
    """Whether a file is part of the package that the module is in, such as a script in Lua."""
    package = sys.modules[module['__name__'].partition('.')[0]]
    folder = Path(package.__file__ or '.').parent
    return isinstance(path, str) and Path(path).is_relative_to(folder)


if __name__ == '__main__':
    main(*sys.argv[1:])

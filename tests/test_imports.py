"""The import rule, components → libraries ← workers, and imports that do nothing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT

MAY_IMPORT = {
    'libraries': {'libraries'},
    'workers': {'workers', 'libraries'},
    'components': {'components', 'libraries'},
}
PROJECT = {path.name for path in ROOT.iterdir() if (path / '__init__.py').exists()} | {'app'}
MODULES = sorted(
    path.relative_to(ROOT) for package in MAY_IMPORT for path in (ROOT / package).rglob('*.py')
)
# What reads the environment or reaches out, by the last name of what is called or looked up.
ACTIVE = {'environ', 'environb', 'getenv', 'get_settings', 'get_connection', 'reaching_redis'} | {
    'Redis', 'StrictRedis', 'from_url', 'connect', 'create_connection', 'socket', 'ValkeyServer',
    'Popen', 'run', 'getcwd', 'cwd', 'print', 'open', 'read_text', 'mkdir', 'basicConfig',
}  # fmt: skip


def parse(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), str(path))


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that the code names, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'line {node.lineno}: imports are absolute here'
            assert node.module is not None
            yield node.module
        elif isinstance(node, ast.Call) and last_name(node.func) in ('import_module', '__import__'):
            yield from texts(node.args[:1])


def texts(nodes: list[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def last_name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ''


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported: not the bodies of functions, nor the main block."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and '__main__' in ast.unparse(child.test):
            continue
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            outside = [*child.args.defaults, *filter(None, child.args.kw_defaults)]
            outside += getattr(child, 'decorator_list', [])
            for part in outside:
                yield from (part, *run_at_import(part))
        elif not isinstance(child, (ast.Import, ast.ImportFrom, ast.arg)):
            yield child
            yield from run_at_import(child)


def acts(tree: ast.AST) -> list[str]:
    """Calls and look-ups at import that reach for the world outside."""
    found = []
    for node in run_at_import(tree):
        looked_up = last_name(node) in ('environ', 'environb')
        called = isinstance(node, ast.Call) and last_name(node.func) in ACTIVE
        if looked_up or called:
            found.append(f'line {node.lineno}: {ast.unparse(node)}')  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize('path', MODULES, ids=str)
def test_a_module_imports_only_what_the_rule_allows(path: Path) -> None:
    package = path.parts[0]
    ours = {name.split('.')[0] for name in imported(parse(path))} & PROJECT
    assert ours <= MAY_IMPORT[package]


@pytest.mark.parametrize('path', MODULES, ids=str)
def test_importing_a_module_reaches_for_nothing(path: Path) -> None:
    assert acts(parse(path)) == []


@pytest.mark.parametrize('path', [p for p in MODULES if p.parts[0] == 'components'], ids=str)
def test_components_know_no_queue(path: Path) -> None:
    assert {name.split('.')[0] for name in imported(parse(path))}.isdisjoint({'rq', 'redis'})


@pytest.mark.parametrize('path', [p for p in MODULES if p.parts[0] == 'workers'], ids=str)
def test_tasks_know_nothing_of_queues(path: Path) -> None:
    names = set(imported(parse(path)))
    assert {name.split('.')[0] for name in names}.isdisjoint({'rq', 'redis', 'flask'})
    assert names.isdisjoint({'libraries.job_manager', 'qdjobs.client.redis', 'qdjobs.extension'})


def test_importing_all_tasks_waits_for_no_engine() -> None:
    tasks = ', '.join('.'.join(p.with_suffix('').parts) for p in MODULES if p.parts[0] == 'workers')
    code = f'import flask, {tasks}, sys; print(*(name.split(".")[0] for name in sys.modules))'
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert 'workers' in loaded
    assert loaded.isdisjoint({'polars', 'PIL', 'reportlab', 'email_validator', 'redis', 'rq'})


def test_there_are_modules_in_every_package() -> None:
    assert {path.parts[0] for path in MODULES} == set(MAY_IMPORT)
    assert set(MAY_IMPORT) <= PROJECT


@pytest.mark.parametrize(
    'source',
    [
        'import workers.svg_tasks',
        'import os, workers',
        'from workers import svg_tasks',
        'def f():\n    from workers.svg_tasks import generate_complex_svg',
        'if TYPE_CHECKING:\n    import workers',
        "importlib.import_module('workers.svg_tasks')",
    ],
)
def test_the_check_sees_every_kind_of_import(source: str) -> None:
    assert 'workers' in {name.split('.')[0] for name in imported(ast.parse(source))}


@pytest.mark.parametrize(
    'source',
    [
        "URL = os.environ['REDIS_URL']",
        "URL = os.getenv('REDIS_URL')",
        'connection = Redis()',
        "connection = redis.Redis.from_url('redis://')",
        'def f(connection=get_connection()): ...',
        'class A:\n    settings = get_settings()',
        'try:\n    s = socket.socket()\nexcept OSError: pass',
        '@dataclass\nclass A:\n    x: str = os.environ.get("x")',
        'f = lambda x=getenv("X"): x',
        "A = [open(name) for name in 'ab']",
    ],
)
def test_the_check_sees_what_acts_at_import(source: str) -> None:
    assert acts(ast.parse(source)) != []


@pytest.mark.parametrize(
    'source',
    [
        'def f():\n    return os.environ',
        'from redis import Redis',
        'f = lambda: get_settings()',
        'def f(connection: Redis) -> Redis: ...',
        "if __name__ == '__main__':\n    print(1)",
    ],
)
def test_the_check_lets_functions_act(source: str) -> None:
    assert acts(ast.parse(source)) == []

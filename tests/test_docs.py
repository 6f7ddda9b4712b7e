"""What README.md and docs/ show works as it stands there, and every link leads somewhere.

A block runs, or has a note that says why not; tests/support/documents.py lists the notes.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from qdjobs.client.states import STATES
from qdjobs.server import HOST, free_port
from tests.support.documents import PAGES, Block, anchors, blocks, commands, files, links, page
from tests.support.newcomer import Newcomer
from tests.support.processes import ROOT

# Pages whose blocks need more than one folder and one Valkey: the tests that follow them.
ELSEWHERE = {
    'docs/adopting.md': 'tests/examples/test_shop.py',
    'docs/tracing.md': 'tests/qdjobs/integrations/test_document.py',
}
APPLICATION = ('app.py', 'qdjobs', 'libraries', 'workers', 'components', 'examples', 'Procfile.dev')
UNWANTED = shutil.ignore_patterns('__pycache__', '.*', 'shop')
FOLLOWED = [path for path in PAGES if page(path) not in ELSEWHERE]
NOWHERE = f'redis://{HOST}:1/0'


def parse_python(body: str) -> None:
    compile(body, '<page>', 'exec')


def parse_shell(body: str) -> None:
    subprocess.run(['bash', '-n'], input=body, text=True, check=True)


def parse_console(body: str) -> None:
    typed = list(commands(body))
    assert typed, 'no line begins with a prompt'
    for command, _ in typed:
        parse_shell(command)


PARSERS: dict[str, Callable[[str], Any]] = {
    'python': parse_python,
    'console': parse_console,
    'sh': parse_shell,
    'json': json.loads,
    'yaml': lambda body: list(yaml.safe_load_all(body)),
    'toml': tomllib.loads,
    'diff': lambda body: body.index('+++ '),  # applied where the page is followed
    'mermaid': lambda body: ['stateDiagram-v2', 'sequenceDiagram'].index(body.split()[0]),
    'text': str,
    '': str,
    '{eval-rst}': str,  # Sphinx reads these two
    '{toctree}': str,
}


@pytest.mark.parametrize('path', PAGES, ids=page)
def test_every_block_of_a_page_has_a_language_that_it_is_valid_in(path: Path) -> None:
    document = path.read_text()
    found = blocks(document)
    assert 2 * len(found) == len(re.findall('^ *(?:```|~~~)', document, re.MULTILINE))
    for block in found:
        PARSERS[block.kind](block.body)


@pytest.mark.parametrize('path', PAGES, ids=page)
def test_every_link_of_a_page_leads_to_a_file_and_an_anchor_that_exist(path: Path) -> None:
    for link in links(path.read_text()):
        target = urlsplit(link)
        if target.scheme:
            assert target.scheme in ('http', 'https'), link
            assert target.netloc, link
            continue
        file = (path.parent / target.path).resolve() if target.path else path
        assert file.exists(), link
        assert not target.fragment or target.fragment in anchors(file.read_text()), link


@pytest.mark.parametrize('path', sorted((ROOT / 'docs').glob('*.md')), ids=page)
def test_a_page_of_the_site_links_to_nothing_outside_of_it(path: Path) -> None:
    assert [link for link in links(path.read_text()) if link.startswith('..')] == []


def test_every_page_that_code_names_exists() -> None:
    for folder in ('qdjobs', 'libraries', 'components', 'workers', 'examples', 'deploy'):
        for path in (ROOT / folder).rglob('*.*'):
            if path.suffix in ('.py', '.html', '.js', '.yaml', '.service'):
                for named, _, anchor in re.findall(
                    r'\b(docs/\w+\.md)(#([\w-]+))?', path.read_text()
                ):
                    assert (ROOT / named).exists(), path
                    assert not anchor or anchor in anchors((ROOT / named).read_text()), path


def test_the_readme_has_at_most_180_lines() -> None:
    assert len((ROOT / 'README.md').read_text().splitlines()) <= 180


def test_the_diagram_of_states_has_those_of_the_table_and_ends_in_the_terminal_ones() -> None:
    document = (ROOT / 'docs/reliability.md').read_text()
    [diagram] = [block.body for block in blocks(document) if 'stateDiagram' in block.body]
    steps = re.findall(r'^ *(\S+) --> (\S+?)(?: *:|$)', diagram, re.MULTILINE)
    assert {state for step in steps for state in step} - {'[*]'} == set(STATES)
    ends = {state for state, following in steps if following == '[*]'}
    assert ends == {name for name, state in STATES.items() if state.is_terminal}


def test_every_page_is_followed() -> None:
    for name, test in ELSEWHERE.items():
        assert name in (ROOT / test).read_text()


@pytest.fixture
def reader(tmp_path: Path, redis_url: str) -> Iterator[Newcomer]:
    """Somebody in a clone of the repository, with a Valkey, who may run `make up` beside it."""
    folder = tmp_path / 'clone'
    folder.mkdir()
    for name in APPLICATION:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=UNWANTED)
        else:
            shutil.copy(ROOT / name, folder)
    (folder / '.venv').symlink_to(sys.prefix)
    (folder / 'uploads').mkdir()
    web, redis, mail = free_port(), free_port(), free_port()
    user = Newcomer(
        folder,
        {
            'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
            'HOME': str(tmp_path),
            'PYTHONPATH': str(folder),
            'REDIS_URL': redis_url,
            'WEB_PORT': str(web),
            'REDIS_PORT': str(redis),
            'MAIL_PORT': str(mail),
            'JOBS_API_TOKEN': 'a-token-of-32-characters-or-more',
        },
        {
            'make up': 'python -m examples.up',  # tests/test_make.py runs the targets themselves
            'make demo': 'python -m examples.demo',
            ':8000': f':{web}',
            ':6399': f':{redis}',
        },
        tmp_path,
    )
    try:
        yield user
    finally:
        user.leave()


@pytest.mark.slow  # seconds a page
@pytest.mark.parametrize('path', FOLLOWED, ids=page)
def test_what_a_page_shows_works(reader: Newcomer, path: Path) -> None:
    document = path.read_text()
    reader.follow(document)
    saved = [path.removesuffix('.py').replace('/', '.') for path in files(document)]
    if saved:
        modules = ', '.join(name.removesuffix('.__init__') for name in saved)
        reader.type(f'python -W error -c "import {modules}"')
    tests = [name for name in files(document) if Path(name).name.startswith('test_')]
    if tests:  # which need no Redis but that of a fixture
        reader.type(f'export REDIS_URL={NOWHERE}')
        reader.type(
            f'python -m pytest -q -W error -p qdjobs.testing.pytest_plugin {" ".join(tests)}'
        )
    for name in tests:
        if 'unittest' in name:
            reader.type(f'python -W error -m unittest {name}')


@pytest.mark.slow  # ten seconds, and requirements-docs.txt
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, '-m', 'sphinx', '--quiet', '--fail-on-warning', '--keep-going']
    done = subprocess.run(
        [*command, '-d', str(tmp_path / 'doctrees'), 'docs', str(tmp_path / 'site')],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, '')
    assert 'id="qdjobs.enqueue_background_job"' in (tmp_path / 'site/api.html').read_text()
    assert 'class="mermaid' in (tmp_path / 'site/reliability.html').read_text()


@pytest.mark.slow
def test_a_block_that_fails_is_found(reader: Newcomer) -> None:
    for kind, body in (
        ('python', "'a' * 2  # 'aaa'\n"),
        ('python', 'get_job_status()\n'),
        ('console', '$ echo a\nb\n'),
        ('console', '$ false\n'),
    ):
        with pytest.raises(AssertionError):
            reader.do(Block(kind, body, {}))
    reader.do(Block('python', "'a' * 2  # 'a…'\n", {}))
    reader.do(Block('console', '$ echo a\na\n', {}))

"""The documents as data: their fenced blocks, with the notes above them, their links and anchors.

A note is an HTML comment in the line above a block:

<!-- not run: why it cannot be run here -->
<!-- output not compared: why it differs each time -->
<!-- run with: NAME=value -->
<!-- run beside: a command that serves what the block uses -->
"""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import ROOT

PAGES = (ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md')))

_BLOCK = re.compile(r'((?:^<!-- [^\n]* -->\n)*)^```(\S*)\n(.*?)^```$', re.DOTALL | re.MULTILINE)
_NOTE = re.compile(r'<!-- (not run|output not compared|run with|run beside): (.+) -->')
_FILE = re.compile(r'# ([\w/]+\.py)\b')
_HEADING = re.compile(r'^#+ (.+?) *$', re.MULTILINE)
_LINK = re.compile(r'\]\(([^()\s]+)\)|<(https?:[^>\s]+)>|^\[[^\]^]+\]: (\S+)', re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and its notes by their kind."""

    kind: str
    body: str
    notes: dict[str, str]

    @property
    def file(self) -> tuple[str, str] | None:
        """The path that Python names in its first line, and what is in that file; or None."""
        first, _, content = self.body.partition('\n')
        named = _FILE.match(first)
        return (named[1], content) if named else None


def blocks(document: str) -> list[Block]:
    return [
        Block(kind, body, dict(_NOTE.findall(above)))
        for above, kind, body in _BLOCK.findall(document)
    ]


def files(document: str) -> dict[str, str]:
    """The files that a document shows: those that have a path."""
    return dict(block.file for block in blocks(document) if block.kind == 'python' and block.file)


def commands(body: str) -> Iterator[tuple[str, str]]:
    """The commands of a `console` block, each with what it is said to write."""
    for part in re.split(r'^[$#] ', body, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        length = 1
        while length < len(lines) and not is_whole(''.join(lines[:length])):
            length += 1
        yield ''.join(lines[:length]).rstrip('\n'), ''.join(lines[length:])


def is_whole(command: str) -> bool:
    """Whether a shell would run this, rather than wait for more or refuse it."""
    parsed = subprocess.run(['bash', '-n'], input=command, text=True, capture_output=True)
    return parsed.returncode == 0 and not parsed.stderr and not command.endswith('\\\n')


def prose(document: str) -> str:
    """A document without its blocks and its code."""
    return re.sub(r'`[^`\n]+`', '', _BLOCK.sub('', document))


def links(document: str) -> list[str]:
    return [''.join(found) for found in _LINK.findall(prose(document))]


def anchors(document: str) -> set[str]:
    """The anchors of the headings, as GitHub and the site make them."""
    made: set[str] = set()
    for heading in _HEADING.findall(_BLOCK.sub('', document)):
        text = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading)
        slug = re.sub(r'[^\w\- ]', '', text.lower()).replace(' ', '-')
        repeated = sum(each == slug or bool(re.fullmatch(f'{slug}-[0-9]+', each)) for each in made)
        made.add(f'{slug}-{repeated}' if repeated else slug)
    return made


def page(path: Path) -> str:
    """The name of a page in a test."""
    return str(path.relative_to(ROOT))

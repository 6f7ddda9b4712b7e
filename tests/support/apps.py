"""Applications that a worker is to find, each with a configuration of its own."""

import click
from flask import Flask, current_app

from qdjobs import JobQueue


def create_shop() -> Flask:
    """An application that shares its Redis with others."""
    shop = Flask('shop')
    shop.config.update(
        JOB_KEY_PREFIX='shop',
        JOB_QUEUES=['fast', 'slow'],
        JOB_TASK_MODULES=['tests.support.tasks'],
        JOB_LEASE=5,
    )
    JobQueue(shop)
    return shop


def create_plain(name: str = 'plain') -> Flask:
    """An application that has what the environment says."""
    plain = Flask(name)
    JobQueue(plain)
    return plain


def create_with_own_jobs() -> Flask:
    """An application that has a command `jobs` already."""
    own = Flask('own')

    @own.cli.command('jobs', short_help='Our own jobs.')
    @click.argument('word')
    def jobs(word: str) -> None:
        click.echo(f'{current_app.name} {word}')

    JobQueue(own)
    return own


def create_broken() -> Flask:
    raise RuntimeError('no database\nat all')


plain_app = Flask('ready-made')

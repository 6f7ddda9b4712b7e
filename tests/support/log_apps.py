"""Applications that configure logging, each in another way."""

import json
import logging
import logging.config
from typing import Any

from flask import Flask

FIELDS = ('levelname', 'name', 'message', 'job_id', 'task', 'attempt', 'queue')


class JsonFormatter(logging.Formatter):
    """The format of an application: it marks its lines as such."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        shown = {name: record.__dict__.get(name) for name in FIELDS}
        return json.dumps({'by': 'application', **shown, 'text': text})


def _configure(**options: object) -> None:
    """Do as Flask's documentation does."""
    logging.config.dictConfig(
        {
            'version': 1,
            'formatters': {'json': {'()': JsonFormatter}},
            'handlers': {
                'wsgi': {
                    'class': 'logging.StreamHandler',
                    'stream': 'ext://flask.logging.wsgi_errors_stream',
                    'formatter': 'json',
                }
            },
            'root': {'level': 'INFO', 'handlers': ['wsgi']},
            **options,
        }
    )


def _new_app() -> Flask:
    app = Flask('log_app')
    app.logger.info('the application is made')
    return app


def create_disabling() -> Flask:
    _configure()
    return _new_app()


def create_keeping() -> Flask:
    _configure(disable_existing_loggers=False)
    return _new_app()


def create_for_warnings() -> Flask:
    _configure(root={'level': 'WARNING', 'handlers': ['wsgi']})
    return _new_app()


def create_without_level() -> Flask:
    _configure(root={'handlers': ['wsgi']})
    return _new_app()


def create_for_own_logger() -> Flask:
    _configure(root={}, loggers={'log_app': {'level': 'INFO', 'handlers': ['wsgi']}})
    return _new_app()


def create_basic() -> Flask:
    logging.basicConfig(level='INFO', format='basic %(name)s %(task)s %(message)s')
    return _new_app()


def create_bare() -> Flask:
    """Configure nothing, though Flask adds a handler to its logger."""
    logging.getLogger('log_setup').info('the set-up speaks')
    return _new_app()


def create_careless() -> Flask:
    logging.info('configures the root logger')
    return _new_app()


def create_with_factory() -> Flask:
    """Have records of its own, which have fields of the same names."""

    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = logging.LogRecord(*args, **kwargs)
        record.task = 'known better'
        return record

    logging.setLogRecordFactory(make)
    return Flask('log_app')

"""The logging of a worker: what the application configures or, if it configures nothing, ours.

Ours is one handler on the root logger, which writes to standard error, and the level INFO. Every
record has the attributes `job_id`, `task`, `attempt` and `queue`, also those of libraries.

`set_up` is called in the parent, what follows it in both processes or in the horse.
"""

import contextlib
import io
import logging
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from flask.logging import default_handler
from rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT
from rq.exceptions import DeserializationError
from rq.job import Job
from rq.logutils import ColorizingStreamHandler

from qdjobs.config import JobConfig
from qdjobs.progress import describe_job

NO_JOB: Mapping[str, Any] = dict.fromkeys(('job_id', 'task', 'attempt', 'queue'))

_OWN = ('rq', 'qdjobs')  # the loggers of RQ and of this package
_STANDARD = {*vars(logging.LogRecord('', 0, '', 0, '', None, None)), 'message', 'asctime'}

_rq_log = logging.getLogger('rq.worker')
# Of the running job. No context variable: the threads that a task starts log for it too.
_job: Mapping[str, Any] = NO_JOB


class _Default(int):
    """A level that the root logger has until an application sets one, if only the same."""


class _OwnHandler(logging.StreamHandler[Any]):
    """The handler of a worker whose application configures none."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _is_written(record)


class _TextFormatter(logging.Formatter):
    """Shows the id of the job, if one runs."""

    def __init__(self, date_format: str | None) -> None:
        super().__init__('%(asctime)s %(levelname)s %(name)s: %(message)s', date_format)
        self._in_job = logging.PercentStyle(
            '%(asctime)s %(levelname)s %(name)s [%(job_id)s]: %(message)s'
        )

    def formatMessage(self, record: logging.LogRecord) -> str:
        in_job = getattr(record, 'job_id', None) is not None
        return self._in_job.format(record) if in_job else super().formatMessage(record)


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object, `extra` fields included."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            'time': datetime.fromtimestamp(record.created, UTC).isoformat(timespec='milliseconds'),
            'level': record.levelname,
            'logger': record.name,
            'message': record.getMessage(),
        }
        if record.exc_info:
            line['exception'] = self.formatException(record.exc_info)
        if record.stack_info:
            line['stack'] = self.formatStack(record.stack_info)
        for name, value in record.__dict__.items():
            if name not in _STANDARD:
                line[f'{name}_' if name in line else name] = value
        try:
            return _encode(line).decode()
        except (ValueError, RecursionError):
            return _encode({name: _encode_leniently(line[name]) for name in line}).decode()


_encode = msgspec.json.Encoder(enc_hook=str).encode


def _encode_leniently(value: Any) -> msgspec.Raw:
    try:
        return msgspec.Raw(_encode(value))
    except (ValueError, RecursionError):  # such as a name of a file that is not UTF-8
        return msgspec.Raw(_encode(str(value).encode(errors='backslashreplace').decode()))


class _Fields(dict[str, Any]):
    """The attributes of a record, among which `extra` may have the names of NO_JOB again.

    `Logger.makeRecord` refuses an `extra` field whose name is `in record.__dict__`, and RQ as
    well as applications have such: to that question alone these names are absent. Formatters,
    filters and handlers find them, and what `extra` says goes before what the job says.
    """

    def __contains__(self, name: object) -> bool:
        return name not in NO_JOB and dict.__contains__(self, name)


class _RecordFactory:
    """Adds the attributes of the running job to the records of another factory."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._inner(*args, **kwargs)
        fields = _Fields(_job)
        fields.update(record.__dict__)
        record.__dict__ = fields
        return record


_own = _OwnHandler()
_known: frozenset[str] = frozenset()  # the loggers that exist without any task


# -- in the parent -------------------------------------------------------------------------------


def set_up(config: JobConfig, level: int | str | None, date_format: str, log_format: str) -> None:
    """Configure logging, unless somebody has. The arguments are those of RQ's `work`.

    An option of the command goes before the configuration of qdjobs. Raises ValueError for an
    unknown level.
    """
    global _own, _known
    threshold = _Default(logging.INFO if level is None else _number(level))
    logging.root.removeHandler(_own)
    _own = _OwnHandler()
    _own.setFormatter(_formatter(config, date_format, log_format))
    logging.lastResort = _own  # while the root logger has no handler
    default_handler.setFormatter(_own.formatter)  # Flask gives it to app.logger for want of any
    _remove_rq_handlers(threshold)
    _wrap_record_factory()
    _known = frozenset(logging.root.manager.loggerDict)
    for logger in _loggers():
        if _is_own(logger.name):
            logger.disabled = False  # by `rq worker -c`, whose dictConfig knows nothing of them
    if not _is_configured():
        logging.root.addHandler(_own)
    if not _has_handler(logging.root):
        if level is not None or logging.root.level == logging.WARNING:
            logging.root.setLevel(threshold)
    elif level is not None:
        for name in (*_OWN, *config.task_modules):
            logging.getLogger(name).setLevel(threshold)


def _number(level: int | str) -> int:
    if isinstance(level, int):
        return level
    levels = logging.getLevelNamesMapping()
    if level.upper() not in levels:
        raise ValueError(f'The logging level must be one of {", ".join(levels)}, not {level!r}.')
    return levels[level.upper()]


def _formatter(config: JobConfig, date_format: str, log_format: str) -> logging.Formatter:
    if log_format != DEFAULT_LOGGING_FORMAT:
        return logging.Formatter(log_format, date_format)
    if config.log_format == 'json':
        return JsonFormatter()
    return _TextFormatter(None if date_format == DEFAULT_LOGGING_DATE_FORMAT else date_format)


def _remove_rq_handlers(threshold: int) -> None:
    """Undo what `rq worker` and the import of RQ have done, so that the root logger rules."""
    for handler in _rq_log.handlers[:]:
        if isinstance(handler, ColorizingStreamHandler):
            _rq_log.removeHandler(handler)
            _rq_log.propagate = True
    if not _rq_log.handlers and _rq_log.level in (logging.INFO, threshold):
        _rq_log.setLevel(logging.NOTSET)


# -- while the application configures logging ----------------------------------------------------


@contextlib.contextmanager
def configurable() -> Iterator[None]:
    """Let the block, which runs code of the application, configure logging as in any process.

    After it our handler is there only if nobody has configured the root logger, RQ's or ours.
    """
    # dictConfig disables the loggers that exist. Here there are more than the author of an
    # application expects: ours, and those of all that was imported for the tasks.
    wanted = [
        logger
        for logger in _loggers()
        if not logger.disabled and (logger.name not in _known or _is_own(logger.name))
    ]
    logging.root.removeHandler(_own)  # or basicConfig would do nothing
    try:
        yield
    finally:
        for logger in wanted:
            logger.disabled = False
        _wrap_record_factory()
        _remove_implicit_handler()
        if not _is_configured():
            logging.root.addHandler(_own)
        if _has_handler(logging.root) and isinstance(logging.root.level, _Default):
            logging.root.setLevel(logging.WARNING)  # Python's default, as in the web process


def _is_configured() -> bool:
    """Return whether the records of RQ and of this package reach a handler of somebody else."""
    return any(map(_has_handler, (logging.root, *map(logging.getLogger, _OWN), _rq_log)))


def _has_handler(logger: logging.Logger) -> bool:
    ignored = (_OwnHandler, logging.NullHandler)
    return any(not isinstance(handler, ignored) for handler in logger.handlers)


def _remove_implicit_handler() -> None:
    """Remove what `logging.info()` and the like configure if the root logger has no handler."""
    if not isinstance(logging.root.level, _Default):
        return
    for handler in logging.root.handlers[:]:
        is_plain = type(handler) is logging.StreamHandler and handler.stream is sys.stderr
        if is_plain and getattr(handler.formatter, '_fmt', '') == logging.BASIC_FORMAT:
            logging.root.removeHandler(handler)


def _is_written(record: logging.LogRecord) -> bool:
    """Return whether the application has given the record's own logger a handler that writes it."""
    logger = logging.root.manager.loggerDict.get(record.name)
    while isinstance(logger, logging.Logger) and logger is not logging.root:
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler) and record.levelno >= handler.level:
                return True
        logger = logger.parent
    return False


def _wrap_record_factory() -> None:
    inner = logging.getLogRecordFactory()
    if not isinstance(inner, _RecordFactory):
        logging.setLogRecordFactory(_RecordFactory(inner))


def _loggers() -> list[logging.Logger]:
    known = list(logging.root.manager.loggerDict.values())
    return [logger for logger in known if isinstance(logger, logging.Logger)]


def _is_own(name: str) -> bool:
    return name.partition('.')[0] in _OWN


# -- in the horse --------------------------------------------------------------------------------


def quieten_rq(is_description_shown: bool) -> None:
    """Leave out what RQ says about a job at INFO, and the arguments if they are to be hidden.

    By the level of RQ's own logger: Sentry's SDK knows it by its name.
    """
    if not _rq_log.isEnabledFor(logging.DEBUG):
        _rq_log.setLevel(max(logging.WARNING, _rq_log.getEffectiveLevel()))
    if not is_description_shown:
        _rq_log.addFilter(_hide_arguments)


def _hide_arguments(record: logging.LogRecord) -> bool:
    for name in ('arguments', 'kwargs'):
        record.__dict__.pop(name, None)
    return True


def flush_each_line() -> None:
    """Write what a task prints as soon as a line ends: its process may be killed."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)


def enter(job: Job) -> None:
    """Give every record the attributes of this job, until `leave`."""
    global _job
    _job = fields_of(job)


def leave() -> None:
    global _job
    _job = NO_JOB


def fields_of(job: Job) -> dict[str, Any]:
    """Return the attributes that the records of a job have."""
    try:
        now = describe_job(job)
    except (DeserializationError, AttributeError, TypeError):  # anyone may have written the record
        return {**NO_JOB, 'job_id': job.id, 'queue': job.origin}
    return {'job_id': now.id, 'task': now.task, 'attempt': now.attempt, 'queue': now.queue}


def ended(outcome: str, duration: float) -> dict[str, Any]:
    """Return the `extra` fields of the line about the end of a run."""
    return {'event': 'job_ended', 'outcome': outcome, 'duration': round(duration, 6)}

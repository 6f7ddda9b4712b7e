"""Send mails through the server at `SMTP_URL`, from `MAIL_FROM`.

What cannot be sent by any server, such as a mail to `zoe`, is refused when the job is enqueued.
"""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, select_autoescape

from libraries.mail.message import plain_address, write_message
from libraries.mail.settings import read_mail_settings
from qdjobs.checks import checked_by
from qdjobs.errors import PermanentJobError, short_repr
from qdjobs.progress import current_job

Sent = dict[str, str]  # message_id; to: the accepted address, in ASCII
Filled = tuple[str, str | None]


def _fill_in(recipient: str, subject: str, template: str, **context: object) -> Filled:
    """Return the text of a notification, and its HTML or None.

    Raises PermanentJobError for an unknown template and a missing variable.
    """
    if template not in _template_names():
        known = ', '.join(_template_names())
        raise PermanentJobError(
            f'{short_repr(template)} is not a mail template: use one of {known}.'
        )
    if 'self' in context:
        raise PermanentJobError("Jinja reserves the name 'self': rename that argument.")
    values = context | {'recipient': recipient, 'subject': subject}
    text = _render(f'{template}.txt', values)
    has_html = f'{template}.html' in _templates().list_templates()
    return text, _render(f'{template}.html', values) if has_html else None


def _check_notification(recipient: str, subject: str, template: str, **context: object) -> None:
    _check(recipient, subject, *_fill_in(recipient, subject, template, **context))


@checked_by(_check_notification)
def send_notification(recipient: str, subject: str, template: str, **context: object) -> Sent:
    """Send a mail from `templates/email/<template>.txt` and, if it exists, the `.html` beside it.

    The templates get the context, `recipient` and `subject`. Returns and raises what send_email
    does; raises PermanentJobError also for an unknown template and a missing variable.
    """
    return _send(recipient, subject, *_fill_in(recipient, subject, template, **context))


def _check(to: str, subject: str, text: str, html: str | None = None) -> None:
    """Raise ValueError for a mail that cannot be written, whoever sends it."""
    write_message(('', 'noreply@localhost'), plain_address(to), subject, text, html, None)


@checked_by(lambda to, subject, body: _check(to, subject, body))
def send_email(to: str, subject: str, body: str) -> Sent:
    """Send a plain-text mail to one address; return its `message_id` and `to`.

    Raises PermanentJobError for an invalid address, subject or body, without SMTP_URL, and if
    the server refuses permanently; MailServerError if a retry may succeed.
    """
    return _send(to, subject, body)


@checked_by(lambda email, subject, body: _check(email, subject, body))
def email_notification(email: str, subject: str, body: str) -> Sent:
    """The same as send_email, with the address as `email`."""
    return _send(email, subject, body)


def _send(to: str, subject: str, text: str, html: str | None = None) -> Sent:
    from libraries.mail.server import deliver  # slow to import

    settings = read_mail_settings()
    if settings.smtp_url is None:
        raise PermanentJobError('No mail can be sent without a server: set SMTP_URL.')
    job = current_job()
    job_id, run = (job.id, str(job.created_at)) if job else (None, '')
    try:
        recipient = plain_address(to)
        message = write_message(settings.sender, recipient, subject, text, html, job_id, run)
    except ValueError as error:
        raise PermanentJobError(str(error)) from None
    deliver(settings.smtp_url, settings.sender[1], recipient, message.as_bytes())
    return {'message_id': str(message['Message-ID']), 'to': recipient}


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / 'templates' / 'email'),
        autoescape=select_autoescape(['html']),
        undefined=StrictUndefined,
    )


def _template_names() -> list[str]:
    return [name.removesuffix('.txt') for name in _templates().list_templates(['txt'])]


def _render(name: str, values: dict[str, object]) -> str:
    try:
        return _templates().get_template(name).render(values)
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        # Permanent: rendering depends on nothing but the template and its values.
        raise PermanentJobError(
            f'The mail template {name} cannot be filled in: {error}.'
        ) from error

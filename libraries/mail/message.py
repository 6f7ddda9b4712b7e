"""Check addresses and write mail messages that any SMTP server accepts."""

import hashlib
import re
from datetime import UTC, datetime
from email.header import Header
from email.message import EmailMessage
from email.utils import formataddr, make_msgid

from qdjobs.errors import short_repr

# Control characters, line ends of Unicode, and lone surrogates, which cannot be encoded.
_NOT_IN_LINE = re.compile('[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')
_NOT_IN_BODY = re.compile('[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]')
_SHORT = 60  # characters of a subject that fit on one header line


def plain_address(text: str) -> str:
    """The address in ASCII, an international domain as Punycode.

    Private domains, such as `localhost` or `shop.local`, are valid. Raises ValueError for
    anything but one address without a display name.
    """
    from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

    SPECIAL_USE_DOMAIN_NAMES.clear()  # the validator has no option for private ones
    try:
        if '=?' in text:  # an encoded word: some servers decode it to an address not checked here
            raise EmailNotValidError('It must not contain =?.')
        valid = validate_email(
            text,
            allow_smtputf8=False,
            check_deliverability=False,
            globally_deliverable=False,
        )
    except EmailNotValidError as error:
        raise ValueError(
            f'{short_repr(text)} is not one plain address, such as zoe@example.com: {error}'
        ) from None
    return str(valid.ascii_email)


def read_sender(text: str) -> tuple[str, str]:
    """Parse `Plotter <plotter@example.com>`, or the address alone, into (name, ASCII address).

    Raises ValueError for any other form.
    """
    name, bracket, rest = text.rpartition('<')
    if not bracket:
        return '', plain_address(text)
    if not rest.endswith('>'):
        raise ValueError(f'{short_repr(text)} is not of the form Plotter <plotter@example.com>.')
    name = name.strip().removeprefix('"').removesuffix('"')
    _reject(_NOT_IN_LINE, name, 'A name')
    if '=?' in name:
        raise ValueError('A name must not contain =?, with which an encoded word begins.')
    return name, plain_address(rest[:-1])


def write_message(
    sender: tuple[str, str],
    recipient: str,
    subject: str,
    text: str,
    html: str | None,
    job_id: str | None,
    run: str = '',
) -> EmailMessage:
    """Write a message in 7-bit ASCII; the addresses are those of read_sender and plain_address.

    The `Message-ID` is the same at every attempt of a job. It differs for another message of
    the same job and for another `run` under the same job id: mail servers drop a message whose
    id they have seen. Raises ValueError for a subject or body with invalid characters, and for
    an empty subject.
    """
    from email.policy import SMTP

    message = EmailMessage(SMTP.clone(cte_type='7bit'))
    message.set_raw('From', formataddr(sender))
    message['To'] = recipient
    message.set_raw('Subject', _subject_header(subject))
    message['Date'] = datetime.now(UTC)
    message['Message-ID'] = _message_id(job_id, sender[1], run, recipient, subject, text)
    message['Auto-Submitted'] = 'auto-generated'  # prevents out-of-office replies
    for body in (text, html or ''):
        _reject(_NOT_IN_BODY, body, 'The body')
    message.set_content(text)
    if html is not None:
        message.add_alternative(html, subtype='html')
    return message


def _subject_header(subject: str) -> str:
    _reject(_NOT_IN_LINE, subject, 'The subject')
    if not subject.strip():
        raise ValueError('The subject must not be empty.')
    plain = subject.isascii() and len(subject) <= _SHORT and '=?' not in subject
    if plain and subject == ' '.join(subject.split()):
        return subject
    # EmailMessage's own folding of long or non-ASCII text drops and adds spaces.
    return Header(subject, 'utf-8', header_name='Subject').encode()


def _message_id(job_id: str | None, sender: str, *content: str) -> str:
    domain = sender.rpartition('@')[2]
    if job_id is None:
        return make_msgid(domain=domain)
    digest = hashlib.sha256(repr(content).encode()).hexdigest()[:12]
    return f'<{job_id}.{digest}@{domain}>'


def _reject(characters: re.Pattern[str], text: str, what: str) -> None:
    if found := characters.search(text):
        raise ValueError(f'{what} must not contain the character {found[0]!a}.')

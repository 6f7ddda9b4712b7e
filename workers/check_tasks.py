"""The task by which the doctor sees that a worker shares its files with the web process."""

import platform
from typing import TypedDict

from libraries.files import outputs, uploads

PATIENCE = 3.0  # seconds for each answer of an object store; the job has ten


class Exchange(TypedDict):
    """What a worker has seen; an error is one line, or None."""

    host: str
    read_error: str | None
    write_error: str | None
    result: str | None  # what a task returns that has written the file


def exchange_files(name: str, content: str) -> Exchange:
    """Read an uploaded file that has this content, and write an output file of the same name."""
    read_error = write_error = result = None
    try:
        with uploads(PATIENCE).open(name) as file:
            if file.read() != content.encode():
                read_error = 'it has other content'
    except FileNotFoundError:
        read_error = 'there is no such file'
    except (OSError, ValueError) as error:
        read_error = str(error).rstrip('.')
    try:
        with outputs(PATIENCE).create(name) as file:
            file.write(content.encode())
        result = str(outputs().result(name))
    except (OSError, ValueError) as error:
        write_error = str(error).rstrip('.')
    return Exchange(
        host=platform.node(), read_error=read_error, write_error=write_error, result=result
    )

"""A task that fails half of the time, to see what becomes of jobs that do."""

import random


def flaky_api_call(**payload: object) -> dict[str, object]:
    """Fail half of the time, as a call of an unreliable API does; else return the payload."""
    if random.random() < 0.5:
        raise ConnectionError('The API does not answer: this task fails half of the time.')
    return payload

"""Bodies of requests somewhere between good ones and noise."""

import json
import random
from collections.abc import Sequence
from typing import Any

WORDS = [
    'task', 'task_name', 'params', 'payload', 'queue', 'max_retries', 'delay', 'id', 'add', 'echo',
    'typed', 'a', 'b', 'x', 'job_id', 'job_', 'high', '5m', 'moment', 'rows', '', '\x00', 'é', '$',
    'tests.support.tasks.add', 'os.system', '__class__', 'self', '2030-01-01',
]  # fmt: skip


def json_like(dice: random.Random, depth: int = 0) -> Any:
    kind = dice.random()
    if depth < 4 and kind < 0.25:
        return {dice.choice(WORDS): json_like(dice, depth + 1) for _ in range(dice.randrange(5))}
    if depth < 4 and kind < 0.4:
        return [json_like(dice, depth + 1) for _ in range(dice.randrange(4))]
    return dice.choice(
        [None, True, False, 0, -1, 1, 2**70, 1.5, -0.0, 1e300, *WORDS, 'x' * dice.randrange(300)]
    )


def random_body(dice: random.Random, tasks: Sequence[str]) -> bytes:
    """Something between a good request and noise."""
    body: Any = {'task': dice.choice(tasks)}
    if dice.random() < 0.7:
        body['params'] = dice.choice([{}, {'a': 1}, {'x': json_like(dice)}, json_like(dice)])
    for _ in range(dice.choice([0, 0, 0, 1, 2])):
        body[dice.choice(WORDS)] = json_like(dice, 2)
    if dice.random() < 0.2:
        body = json_like(dice)
    raw = bytearray(json.dumps(body, ensure_ascii=dice.random() < 0.5).encode())
    for _ in range(dice.choice([0, 0, 0, 1, 1, 3])):  # and then some damage
        at = dice.randrange(len(raw) + 1)
        raw[at : at + dice.randrange(3)] = dice.randbytes(dice.randrange(3))
    return bytes(raw) if dice.random() < 0.95 else dice.randbytes(dice.randrange(200))

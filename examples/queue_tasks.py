"""Three named tasks, in a module that the application and the worker both import."""

import time
from datetime import date
from typing import TypedDict

from qdjobs import JobQueue, track

queue = JobQueue(url_prefix='/jobs')  # the path of the HTTP API, if JOBS_API_TOKEN is set


class Item(TypedDict):
    name: str
    cents: int


@queue.task('send_receipt', job_max_retries=3, job_queue='high')
def send_receipt(to: str, items: list[Item], day: date) -> str:
    total = sum(item['cents'] for item in items) / 100
    return f'To {to}, on {day:%d %B %Y}: {len(items)} items, {total:.2f} euros.'


@queue.task('count_words')
def count_words(text: str) -> dict[str, int]:
    words = text.lower().split()
    return {word: words.count(word) for word in sorted(set(words))}


@queue.task('take_stock', job_timeout='1m', job_queue='low')
def take_stock(shelves: int, seconds_each: float = 0.1) -> int:
    """A slow task that reports its progress."""
    for _ in track(range(shelves), message='counting'):
        time.sleep(seconds_each)
    return shelves * 12

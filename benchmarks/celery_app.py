"""Celery's side of benchmarks/worker.py, in its own environment (requirements-celery.txt).

`python -m benchmarks.celery_app TASK COUNT` sends jobs, waits for them and prints the seconds that
they took; `latency COUNT` prints the seconds from sending to start, one job after another.
"""

import json
import os
import sys
import time

from celery import Celery

app = Celery('bench', broker=os.environ['REDIS_URL'], backend=os.environ['REDIS_URL'])


@app.task(name='empty')
def empty():
    return None


@app.task(name='tell_time')
def tell_time():
    return time.time()


@app.task(name='slow')
def slow():
    from benchmarks import slow_tasks

    return slow_tasks.empty()


def throughput(name, count):
    app.send_task(name).get(timeout=30)
    start = time.perf_counter()
    results = [app.send_task(name) for _ in range(count)]
    results[-1].get(timeout=120)
    return time.perf_counter() - start


def latency(count):
    taken = []
    for _ in range(count):
        start = time.time()
        taken.append(app.send_task('tell_time').get(timeout=30) - start)
        time.sleep(0.01)
    return taken


if __name__ == '__main__':
    what, count = sys.argv[1], int(sys.argv[2])
    sys.stdout.write(json.dumps(latency(count) if what == 'latency' else throughput(what, count)))

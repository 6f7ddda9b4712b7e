"""Tasks of the worker benchmark, the same for every contender."""

import time


def empty() -> None:
    return None


def tell_time() -> float:
    return time.time()

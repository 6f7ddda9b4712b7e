"""Tasks for the worker benchmark, for every contender alike."""

import time


def empty() -> None:
    return None


def tell_time() -> float:
    return time.time()

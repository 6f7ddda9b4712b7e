"""What the worker overrides of RQ is little, and is listed with its reasons."""

import re

import pytest
from rq import Worker

import qdjobs.worker
from qdjobs.worker.runner import Performer
from qdjobs.worker.worker import JobWorker


def overridden(kind: type[Worker]) -> set[str]:
    return {
        name
        for name in vars(kind)
        if hasattr(Worker, name) and name not in ('__module__', '__doc__', '__annotations__')
    }


def listed() -> set[str]:
    text = qdjobs.worker.__doc__ or ''
    items = re.findall(r'^- (.*?):', text, re.MULTILINE)
    return {name for item in items for name in item.split(', ')}


def test_each_override_of_rq_is_listed() -> None:
    assert overridden(JobWorker) | overridden(Performer) == listed()
    assert len(listed()) <= 15


@pytest.mark.parametrize('kind', [JobWorker, Performer])
def test_each_class_inherits_from_rq_alone(kind: type[Worker]) -> None:
    assert kind.__mro__[1:] == Worker.__mro__

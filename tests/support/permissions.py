"""Have the permissions of files count in this thread, as they do not for root."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_VERSION = 0x20080522  # of the headers of capget and capset, for 64 capabilities
_OVERRIDES = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH


@contextmanager
def permissions_count() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    if sys.platform != 'linux':
        pytest.skip('only Linux has root give up a capability for a while')
    # Effective, permitted and inheritable ones, each in two halves of which we need the first.
    header, sets = (ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, sets) == 0
    before = sets[0]
    sets[0] = before & ~_OVERRIDES
    assert libc.capset(header, sets) == 0
    try:
        yield
    finally:
        sets[0] = before
        assert libc.capset(header, sets) == 0

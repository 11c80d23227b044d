"""Python's collector of cyclic garbage, out of the way while very many records are made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """No collection meanwhile; also a decorator.

    Headers become hundreds of thousands of small records, none of them in a cycle: to walk them
    again and again as they grow takes as long as to make them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

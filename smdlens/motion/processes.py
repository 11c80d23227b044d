"""Worker processes: what in_order does with threads, without sharing Python's lock.

A block takes some tens of microseconds, of which a fifth is Python's; threads wait for each other's
fifth, and two of them are no faster than one. A forked process has the run's records at once,
without importing or copying anything.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import connection
from typing import Any, TypeVar

import torch

from smdlens.motion.files import FilePool
from smdlens.motion.workspace import Workspace

Job = TypeVar("Job")
Result = TypeVar("Result")
_CPU = torch.device("cpu")
# What a job came to, bytes read, seconds that took, and what the user should know.
_Answer = tuple[Any, int, float, set[str]]


class ProcessesLostError(Exception):
    """No process could be started, or one was killed; never leaves this package.

    Attributes:
        done: Jobs whose results were handed back before.
    """

    def __init__(self, done: int) -> None:
        self.done = done
        super().__init__(f"worker processes lost after {done} jobs")


def can_fork() -> bool:
    """Whether processes can be forked: Apple's libraries do not survive it, a pool's may not."""
    if sys.platform == "darwin" or multiprocessing.current_process().daemon:
        return False
    return "fork" in multiprocessing.get_all_start_methods()


@dataclass(slots=True)
class _Crew:
    """What every worker process inherits: the jobs, what to do with one, and the open files."""

    jobs: Iterator[Any]
    work: Callable[[Any, Workspace], Any]
    pool: FilePool
    space: Workspace
    notes: set[str]
    next: int = 0

    def run(self, index: int) -> _Answer:
        """Do job number `index`; numbers only grow."""
        job = next(islice(self.jobs, index - self.next, None))
        self.next = index + 1
        pool = self.pool
        pool.bytes_read, pool.read_seconds = 0, 0.0
        result = self.work(job, self.space)
        return result, pool.bytes_read, pool.read_seconds, self.notes


# Filled in a worker process only, and with one: an executor's functions have no other place.
_mine: list[_Crew] = []


def in_order_by_processes(
    jobs: Callable[[], Iterable[Job]],
    work: Callable[[Job, Workspace], Result],
    count: int,
    pool: FilePool,
    notes: set[str],
) -> Iterator[tuple[Result, Job]]:
    """Run jobs on `count` processes, a few ahead of what is asked for.

    Args:
        jobs: Makes the jobs, the same ones each time: every process makes its own.
        work: Does one; its result must pickle.
        count: Processes.
        pool: Open files; what the processes read is counted here.
        notes: What the user should know is added here.

    Raises:
        ProcessesLostError: A process was killed, by the system for want of memory or by somebody.
        SmdlensError: What `work` raises.
    """
    context = multiprocessing.get_context("fork")
    pending: deque[tuple[Job, Future[_Answer]]] = deque()
    done = 0

    def first() -> tuple[Result, Job]:
        nonlocal done
        job, future = pending.popleft()
        result, nbytes, seconds, said = future.result()
        pool.bytes_read += nbytes
        pool.read_seconds += seconds
        notes.update(said)
        done += 1
        return result, job

    executor = ProcessPoolExecutor(count, context, partial(_begin, jobs, work, pool))
    try:
        for index, job in enumerate(jobs()):
            with warnings.catch_warnings():
                # Python 3.12 warns of forking beside threads. A worker uses none of their locks:
                # it reads, sums and answers.
                warnings.simplefilter("ignore", DeprecationWarning)
                pending.append((job, executor.submit(_run, index)))
            if len(pending) >= 2 * count:
                yield first()
        while pending:
            yield first()
    except (BrokenProcessPool, OSError) as error:
        raise ProcessesLostError(done) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _begin(
    jobs: Callable[[], Iterable[Any]], work: Callable[[Any, Workspace], Any], pool: FilePool
) -> None:
    """In a new worker process: its own scratch and its own run through the jobs."""
    # An interrupt reaches every process of the terminal; only the first one is to act on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    # The collector would write to, and so copy, all that is shared with the parent.
    gc.freeze()
    notes: set[str] = set()
    _mine.append(_Crew(iter(jobs()), work, pool, Workspace(pool, _CPU, notes), notes))


def _end_with_parent() -> None:
    """Do not outlive a parent that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a worker process"
    connection.wait([parent.sentinel])
    os._exit(1)


def _run(index: int) -> _Answer:
    return _mine[0].run(index)

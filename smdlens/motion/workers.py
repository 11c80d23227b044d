"""Threads that run jobs and hand back results in the order of the jobs."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import local
from typing import TypeVar

import torch

from smdlens.motion.device import Device
from smdlens.motion.files import FilePool
from smdlens.motion.workspace import Workspace

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_order(
    jobs: Iterable[Job],
    work: Callable[[Job, Workspace], Result],
    device: Device,
    workers: int | None,
    pool: FilePool,
    notes: set[str] | None = None,
) -> Iterator[tuple[Result, Job]]:
    """Run jobs on threads, a few ahead of what is asked for.

    Args:
        jobs: What to do, made as they are needed.
        work: Does one, with the buffers of its thread.
        device: Where the arithmetic runs.
        workers: Threads; one per available core for None.
        pool: Open files.
        notes: What the user should know is added here.
    """
    count = workers or available_cores()
    mine = local()

    def run(job: Job) -> Result:
        if not hasattr(mine, "space"):
            # One thread per worker: two levels of threads fight over the cores.
            torch.set_num_threads(1)
            mine.space = Workspace(pool, device.torch_device, notes)
        return work(job, mine.space)

    threads_before = torch.get_num_threads()
    executor = ThreadPoolExecutor(count, thread_name_prefix="smdlens-motion")
    pending: deque[tuple[Job, Future[Result]]] = deque()
    try:
        for job in jobs:
            pending.append((job, executor.submit(run, job)))
            if len(pending) >= 2 * count:
                job, future = pending.popleft()
                yield future.result(), job
        while pending:
            job, future = pending.popleft()
            yield future.result(), job
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads_before)


def available_cores() -> int:
    """Cores this process may use: a container's share, where the system can tell."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1

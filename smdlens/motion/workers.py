"""Workers that run jobs and hand back results in the order of the jobs."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import local
from typing import TypeVar

import torch

from smdlens.motion.batches import TENSOR_BYTES
from smdlens.motion.device import Device
from smdlens.motion.files import FilePool
from smdlens.motion.plan import TensorPlan
from smdlens.motion.processes import ProcessesLostError, can_fork, in_order_by_processes
from smdlens.motion.workspace import Workspace

# Starting processes takes some hundredths of a second: as long as one worker takes for this much.
WORTH_PROCESSES = 192 << 20
Job = TypeVar("Job")
Result = TypeVar("Result")


def in_order(
    jobs: Callable[[], Iterable[Job]],
    work: Callable[[Job, Workspace], Result],
    device: Device,
    workers: int | None,
    pool: FilePool,
    notes: set[str],
    *,
    processes: bool = False,
) -> Iterator[tuple[Result, Job]]:
    """Run jobs on several workers, a few ahead of what is asked for.

    Args:
        jobs: Makes the jobs as they are needed, the same ones each time.
        work: Does one, with the buffers of its worker.
        device: Where the arithmetic runs.
        workers: How many; one per available core for None.
        pool: Open files.
        notes: What the user should know is added here.
        processes: Take processes where there is enough to do for several; results must pickle.
    """
    count = workers or available_cores()
    done = 0
    if processes and count > 1 and device.torch_device.type == "cpu" and can_fork():
        try:
            yield from in_order_by_processes(jobs, work, count, pool, notes)
            return
        except ProcessesLostError as lost:
            # Most likely for want of memory: go on with as little as possible.
            notes.add("a worker process was lost: finished with one worker")
            count, done = 1, lost.done
    yield from _by_threads(islice(jobs(), done, None), work, device, count, pool, notes)


def _by_threads(
    jobs: Iterable[Job],
    work: Callable[[Job, Workspace], Result],
    device: Device,
    count: int,
    pool: FilePool,
    notes: set[str],
) -> Iterator[tuple[Result, Job]]:
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


def worth_processes(plans: Sequence[TensorPlan], pool: FilePool) -> bool:
    """Whether processes should read the plans' files; if so it is noted what these files are.

    What is packed is unpacked once and kept for all workers, which have to be threads then.
    """
    if sum(plan.nbytes + TENSOR_BYTES for plan in plans) < WORTH_PROCESSES:
        return False
    paths = set()
    for extent in (extent for plan in plans for extent in plan.extents()):
        if extent.packed is not None:
            return False
        paths.add(extent.path)
    pool.note(paths)
    return True


def available_cores() -> int:
    """Cores this process may use: a container's share, where the system can tell."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1

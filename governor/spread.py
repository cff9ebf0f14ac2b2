"""Run many tasks somewhere: here, in processes of this machine, or on a Dask or Ray cluster.

Results come in the order of their tasks, and are the same wherever they were computed: a task
carries all that it depends on, its seed too, and numerical libraries use one thread a process,
since the last bits of their sums go by the number of threads.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from multiprocessing import resource_tracker
from typing import Any, Literal, TypeVar, cast

from governor.errors import InputError, MissingExtraError
from governor.exits import ended_in_order, interrupts_later

T = TypeVar("T")
R = TypeVar("R")

Cluster = Literal["dask", "ray"]

PAYS_S = 5.0
"""Processes take about two seconds to start; where less work than this is left, they stay off."""
PATIENCE_S = 10.0
"""So long a cluster may take to answer."""
TASKS_A_CORE = 4
"""Ray's joblib backend gives back whole lists: of so many tasks for each core, to see progress."""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Place:
    """Where tasks run.

    Attributes:
        jobs: processes that share the work; None: one for each core, once that is seen to pay.
        cluster: whose workers do it; None: processes of this machine.
        scheduler: the cluster's address; None: ``jobs`` workers are started for the occasion.
    """

    jobs: int | None = None
    cluster: Cluster | None = None
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.scheduler is None:
            return
        if self.cluster is None:
            raise InputError(f"--scheduler {self.scheduler} needs --backend dask or --backend ray")
        if self.jobs is not None:
            raise InputError("--jobs is for this machine; a cluster has its own workers: drop it")


def spread(
    work: Callable[[T], R], tasks: Sequence[T], place: Place, *, long_tasks: bool = False
) -> Iterator[R]:
    """What ``work``, a module's function, makes of each task, in their order.

    ``long_tasks``: each takes so long that sharing them pays for sure.

    Raises:
        InputError: the cluster does not answer, or cannot run this program.
        MissingExtraError: the cluster's library is not installed.
        GovernorError: from any of the tasks; the rest are dropped.
    """
    if not tasks:
        return
    if place.cluster == "dask":
        yield from _on_dask(work, tasks, place)
    elif place.cluster == "ray":
        yield from _on_ray(work, tasks, place)
    else:
        yield from _on_this_machine(work, tasks, place.jobs or (_cores() if long_tasks else None))


def _on_this_machine(work: Callable[[T], R], tasks: Sequence[T], jobs: int | None) -> Iterator[R]:
    import joblib  # scikit-optimize brings it, and joblib threadpoolctl
    from threadpoolctl import threadpool_limits

    count = min(jobs or _cores(), len(tasks))
    done = 0
    if jobs is None or count == 1:
        with threadpool_limits(1):
            for task in tasks:
                began_s = time.monotonic()
                yield work(task)
                done += 1
                left = len(tasks) - done
                if count > 1 and left * (time.monotonic() - began_s) > PAYS_S:
                    break
    if done == len(tasks):
        return
    library: Any = joblib
    # Without memory maps a killed process leaves no files behind.
    pool = library.Parallel(n_jobs=count, return_as="generator", max_nbytes=None)
    with ended_in_order(), warnings.catch_warnings(), ExitStack() as stack:
        # Who interrupts the work knows that it was not done.
        warnings.filterwarnings("ignore", ".*still being processed by the workers")
        # Once it has started, it unblocks the signal (CPython to 3.13 at least).
        resource_tracker.ensure_running()
        with interrupts_later():
            results = pool(_calls(work, tasks[done:]))
            stack.callback(_drop, results)
        yield from results


def _drop(results: Any) -> None:
    """End the processes. If they have just begun, loky's thread may trip over what it loses."""
    shown = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if failed.thread is None or "ExecutorManager" not in failed.thread.name:
            shown(failed)

    threading.excepthook = hook
    try:
        results.close()
    finally:
        threading.excepthook = shown


def _on_dask(work: Callable[[T], R], tasks: Sequence[T], place: Place) -> Iterator[R]:
    distributed = _import("distributed")
    import joblib

    library: Any = joblib
    with _dask_client(distributed, place) as client:
        _check_workers(client, place)
        with library.parallel_config(backend="dask", client=client):
            pool = library.Parallel(n_jobs=-1, return_as="generator")
            yield from pool(_calls(work, tasks))


@contextmanager
def _dask_client(distributed: Any, place: Place) -> Generator[Any]:
    if place.scheduler is None:
        # Workers of their own process, reached over the loopback alone, and no dashboard.
        with (
            distributed.LocalCluster(
                n_workers=place.jobs or _cores(),
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=None,
                silence_logs=logging.ERROR,
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = distributed.Client(place.scheduler, timeout=PATIENCE_S)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(
            f"--scheduler {place.scheduler}: no Dask scheduler answers ({_first_line(error)}); "
            "start one with: dask scheduler"
        ) from error
    with client:
        yield client


def _check_workers(client: Any, place: Place) -> None:
    """Refuse workers that would fail task by task, or compute something else."""
    from governor import __version__

    try:
        client.wait_for_workers(1, timeout=PATIENCE_S)
        versions = cast("dict[str, str]", client.run(_version))
    except TimeoutError as error:
        raise InputError(
            f"--scheduler {place.scheduler} has no workers; start some with: "
            f"dask worker {place.scheduler}"
        ) from error
    except ImportError as error:
        raise InputError(f"a worker cannot run this program ({error}); {_INSTALL}") from error
    for worker, version in versions.items():
        if version != __version__:
            raise InputError(
                f"the worker {worker} has energy-governor {version}, this machine {__version__}; "
                + _INSTALL
            )


def _on_ray(work: Callable[[T], R], tasks: Sequence[T], place: Place) -> Iterator[R]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    ray = _import("ray")
    import joblib

    _import("ray.util.joblib").register_ray()
    library: Any = joblib
    with _ray_session(ray, place):
        cores = int(ray.cluster_resources().get("CPU", 1))
        with (
            library.parallel_config(backend="ray"),
            library.Parallel(n_jobs=cores, max_nbytes=None) as pool,
        ):
            step = TASKS_A_CORE * cores
            for start in range(0, len(tasks), step):
                yield from pool(_calls(work, tasks[start : start + step]))


@contextmanager
def _ray_session(ray: Any, place: Place) -> Generator[None]:
    workers = {} if place.scheduler else {"num_cpus": place.jobs or _cores()}
    try:
        if place.scheduler is not None:
            _knock(place.scheduler)
        ray.init(
            address=place.scheduler or "local",
            include_dashboard=None if place.scheduler else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **workers,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"--scheduler {place.scheduler}: no Ray cluster answers ({_first_line(error)}); "
            "start one with: ray start --head"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Ray itself would try for minutes where nobody listens.

    Raises:
        OSError: nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), PATIENCE_S).close()


_INSTALL = "install one version of energy-governor on all machines of the cluster"


def _version() -> str:
    """Of this program on the machine that runs this."""
    from governor import __version__

    return __version__


def _import(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(module.partition(".")[0], "cluster") from error
    except Exception as error:  # whatever it meets where a driver that it looks for is broken
        raise InputError(
            f"{module} is installed and cannot be imported ({type(error).__name__}: {error}); "
            "repair or remove what it names"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _cores() -> int:
    """Those that this process may use."""
    import joblib

    library: Any = joblib
    return int(library.cpu_count())


def _calls(work: Callable[[T], R], tasks: Sequence[T]) -> Iterator[Any]:
    import joblib

    library: Any = joblib
    return (library.delayed(_in_one_thread)(work, task) for task in tasks)


def _in_one_thread(work: Callable[[T], R], task: T) -> R:
    _limit_threads()
    return work(task)


@cache
def _limit_threads() -> object:
    """Of the numerical libraries in this process, for good: those loaded, and those to come."""
    from threadpoolctl import threadpool_limits

    os.environ.update(dict.fromkeys(_THREADS, "1"))
    return threadpool_limits(1)

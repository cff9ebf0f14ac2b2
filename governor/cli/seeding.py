"""``governor seeding``: how many trials a search saves when board or network are known before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governor.cli.replay import (
    Backend,
    Jobs,
    Json,
    Noise,
    Scheduler,
    Seeds,
    Trials,
    check_trials,
    check_writable,
    result_console,
    result_table,
    run_with_progress,
    write_json,
)
from governor.devices.trace import Sweep, read_traces
from governor.errors import InputError
from governor.progress import with_progress
from governor.spread import Place
from governor.units import format_percent, parse_bound
from governor.workloads import workload_names

if TYPE_CHECKING:
    from rich.table import Table

    from governor.roofline.fit import Prior
    from governor.roofline.work import Work
    from governor.seeding import Worth

PRIORS = ("none", "board", "full", "wrong network", "wrong board")
EMULATED = "agx-orin/yolov8n,orin-nano/resnet-50,agx-xavier/mobilenet-v2,tx2/vgg19,nano/resnet-18"

# What the workloads of traces and of emulated boards are: a network that can be counted, how many
# times its FLOP (other than 1: a stand-in of the same kind), and whether it is trained.
# FLOP of Inception v3 and ViT-B/16: 11.4 and 35 G, as torchvision publishes them.
_NETWORKS = {
    **{name: (name, 1.0, False) for name in workload_names()},
    "vgg19": ("vgg-19", 1.0, False),
    "bert": ("bert-large", 1.0, False),
    "inception": ("resnet-50", 1.4, False),
    "resnet50-train": ("resnet-50", 1.0, True),
    "vit-train": ("distilbert", 3.2, True),
}
_SMALL_FLOP = 5e9
"""An item. The wrong network is a large one in the place of a small one, or the other way round."""
_OTHERS = ("bert-large", "lstm")


@dataclass(frozen=True, slots=True)
class _Case:
    """A sweep, and the priors to search it with."""

    sweep: Sweep
    priors: dict[str, Prior]


def seeding(
    traces: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[TRACE.csv]", help="Measured sweeps, beside the emulated ones."),
    ] = None,
    emulated: Annotated[
        str, typer.Option(metavar="BOARD/WORKLOAD,...", help="Emulated sweeps; '' for none.")
    ] = EMULATED,
    latency_slo: Annotated[
        list[str] | None,
        typer.Option("--latency-slo", metavar="BOUND", help="Repeatable; 1.2x and 2x by default."),
    ] = None,
    trials: Trials = 12,
    seeds: Seeds = 2,
    noise: Noise = 0.02,
    json_file: Json = None,
    jobs: Jobs = None,
    backend: Backend = None,
    scheduler: Scheduler = None,
) -> None:
    """Compare searches that know board and network beforehand with such that do not.

    Priors: none; the board's published constants; these and the network's counted work; and,
    to see what a mistake costs, those of another network and of another board. Sweeps of a
    trace whose board or network is not known are left out. Counting needs PyTorch.
    """
    from governor.replay import Task
    from governor.seeding import to_json, worth

    place = Place(jobs, backend, scheduler)
    slos = [parse_bound(text) for text in latency_slo or ("1.2x", "2x")]
    check_writable(json_file, inputs=traces or ())
    measured = _known(read_traces(traces)) if traces else []
    virtual = [_countable(name.strip()) for name in emulated.split(",") if name.strip()]
    if not measured and not virtual:
        raise InputError("nothing to search: give a trace of a known board, or --emulated")
    check_trials(trials, [*measured, *virtual])
    tables: list[Table] = []
    document: dict[str, object] = {}
    for kind, sweeps in (("measured", measured), ("emulated", virtual)):
        if not sweeps:
            continue
        plan = [
            (name, Task(case.sweep, slo, "bayesian", seed, trials, noise, True, prior))
            for case in with_progress(map(_case, sweeps), len(sweeps), "Counting")
            for name, prior in case.priors.items()
            for slo, seed in product(slos, range(seeds))
        ]
        runs = run_with_progress([task for _, task in plan], place)
        by_prior = {
            wanted: [run for (name, _), run in zip(plan, runs, strict=True) if name == wanted]
            for wanted in PRIORS
        }
        worths = [worth(name, found, trials) for name, found in by_prior.items()]
        document[kind] = to_json(worths)
        tables.append(worth_table(worths, sweeps, kind, trials))
    if json_file is not None:
        write_json(json_file, document)
    console = result_console()
    for table in tables:
        console.print(table)


def _known(sweeps: Sequence[Sweep]) -> list[Sweep]:
    """Those whose board has a file and whose network can be counted."""
    from governor.roofline.boards import board_names

    known = [one for one in sweeps if one.device in board_names() and one.workload in _NETWORKS]
    if not known:
        raise InputError(
            f"no sweep of these traces has a known board ({', '.join(board_names())}) and a known "
            f"network ({', '.join(_NETWORKS)})"
        )
    return known


def _countable(name: str) -> Sweep:
    """An emulated sweep of a board that has a file and a network that can be counted."""
    from governor.roofline.boards import load_board

    sweep = emulated_sweep(name)
    if sweep.workload not in _NETWORKS:
        raise InputError(
            f"{sweep.workload!r} is no network that can be counted; choose one of "
            f"{', '.join(_NETWORKS)}"
        )
    load_board(sweep.device)
    return sweep


def emulated_sweep(name: str) -> Sweep:
    """The emulation's own truth at every setting of a board, ``agx-orin/yolov8n``."""
    from governor.devices.emulated import EmulatedBoard

    device, slash, workload = name.partition("/")
    if not slash:
        raise InputError(f"--emulated {name!r} names no workload; write it like nano/resnet-18")
    board = EmulatedBoard(device, workload)
    latency_s, energy_j = board.truth()
    return Sweep(device, workload, 1, board.space, latency_s, energy_j, energy_j / latency_s)


def _case(sweep: Sweep) -> _Case:
    from governor.roofline.boards import load_board
    from governor.roofline.fit import WEAK
    from governor.roofline.prior import prior_for

    board = load_board(sweep.device)
    work = _counted(*_NETWORKS[sweep.workload], sweep.batch_size)
    wrong = _counted(_OTHERS[work.flop / sweep.batch_size > _SMALL_FLOP], 1.0, False, 1)
    other = load_board("nano" if sweep.device != "nano" else "agx-xavier")
    space = sweep.space
    priors = {
        "none": WEAK,
        "board": prior_for(board, space),
        "full": prior_for(board, space, work),
        "wrong network": prior_for(board, space, wrong),
        "wrong board": prior_for(other, space, work),
    }
    return _Case(sweep, priors)


@cache
def _counted(network: str, times: float, training: bool, batch_size: int) -> Work:
    from governor.roofline.counting import count_work

    size = round(times * batch_size)
    return count_work(network, batch_size=size, training=training, fused=False)


def worth_table(
    worths: Sequence[Worth], sweeps: Sequence[Sweep], kind: str, trials: int, first: str = "prior"
) -> Table:
    """How soon the optimum was found with each prior; ``first``: what the first column is."""
    from governor.seeding import AFTER, NEAR

    count = len(sweeps)
    table = result_table(
        f"Trials until within 1 or 2 % of the optimum, and\n"
        f"energy above it after some; {count} {kind} sweep{'s' * (count > 1)}",
        first,
        *(f"trials\nto {format_percent(near)}" for near in NEAR),
        *(f"after\n{k}" for k in AFTER if k <= trials),
        "misses\na run",
        "keeping\nthe SLO",
    )
    for one in worths:
        table.add_row(
            one.prior,
            *(f"{needed:.1f}" for needed in one.trials_to),
            *(format_percent(share) for share in one.excess),
            f"{one.violations:.2f}",
            format_percent(one.slo_met_rate),
        )
    return table

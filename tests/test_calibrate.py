"""Calibration: the fit finds the constants that made the runs; whatever ends it puts all back."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from toy import GPU, ToyBoard

import governor.calibration
from governor.calibration.bench import MIXES, STREAMS, Kernel, Ran
from governor.calibration.choose import open_bench
from governor.calibration.cpu_load import load_cores
from governor.calibration.file import (
    Provenance,
    calibrated,
    curves_of,
    is_told,
    known_terms,
    plain_board,
)
from governor.calibration.fit import fit_power, fit_rates
from governor.calibration.measure import Look, Run, Session, plan
from governor.calibration.ridge import fit_ridge
from governor.calibration.torch_bench import wide_products
from governor.cli.bench.calibration import compare
from governor.cli.calibrate import calibrate_emulated
from governor.cli.main import main
from governor.devices.emulated import EmulatedBoard
from governor.devices.emulated.hardware import load_board as emulated_board
from governor.devices.emulated.physics import leakage_factor
from governor.errors import DeviceError, InputError
from governor.roofline.board import Board, Voltage
from governor.roofline.board_file import format_board, parse_board
from governor.roofline.boards import load_board
from governor.roofline.prediction import Clocks, standing_power

COMPUTE = Kernel(purpose="compute")


class SlowBench:
    """Kernels that cost virtual time and nothing else."""

    description, clock, kernels = "slow", "gpu_hz", (COMPUTE, *STREAMS)

    def __init__(self, board: ToyBoard, fails_after: int = 10**9) -> None:
        self.board, self.left = board, fails_after

    def run(self, kernel: Kernel, seconds: float) -> Ran:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        self.board.clock.sleep(seconds)
        return Ran(flop=1e9 * seconds, bytes=0.0, seconds=seconds)

    def present_hz(self) -> float | None:
        return None

    def close(self) -> None: ...


# What is recovered ------------------------------------------------------------------------


@cache
def calibration(name: str) -> Board:
    """The board file of a calibration, read again."""
    with TemporaryDirectory() as directory:
        file = Path(directory) / f"{name}.toml"
        assert main(["calibrate", "--device", f"emulated:{name}", "-o", str(file)]) == 0
        return load_board(file)


@pytest.fixture(params=["tx2", "orin-nx", "agx-orin"])
def outcome(request) -> Board:
    """The others, and more seeds: governor bench calibration."""
    return calibration(request.param)


def test_each_number_is_within_5_percent_and_each_interval_holds_the_truth(outcome) -> None:
    stated = list(compare(outcome.name, 0, outcome.constants))
    assert len(stated) > 25
    assert [one for one in stated if not one.holds] == []


def test_a_voltage_floor_is_not_caught_at_a_measured_clock() -> None:
    stated = list(compare("nano", 2, calibrate_emulated("nano", seed=2)))  # noise that tempts it
    assert [one for one in stated if not one.holds] == []


def test_peaks_joules_and_voltages_are_told_as_numbers(outcome) -> None:
    told = {key for key, each in outcome.constants.items() if is_told(each)}
    joules = {key for key in outcome.constants if key.startswith("energy.pj_per_flop")}
    peaks = {key for key in outcome.constants if "flop_per_clock" in key}
    assert told >= joules | peaks | {"gpu.voltage", "energy.memory_pj_per_byte"}
    assert told >= {"gpu.bytes_per_clock", "cpu.busy_w_per_ghz"}


def test_standing_power_is_that_of_the_emulation_with_its_leakage(outcome) -> None:
    truth = emulated_board(outcome.name)
    cpu, gpu = truth.cpu, truth.gpu
    memory = np.array(truth.memory.soc_w) + np.array(truth.memory.dram_w)
    for end in (0, -1):
        cpu_v2, gpu_v2 = cpu.volts[end] ** 2, gpu.volts[end] ** 2
        cpu_w = (cpu.idle_w_per_ghz + cpu.core_w_per_ghz) * cpu.hz[end] / 1e9 * cpu_v2
        gpu_w = gpu.busy_w_per_ghz * gpu.hz[end] / 1e9 * gpu_v2
        at = Clocks(
            cpu_hz=cpu.hz[[end]],
            gpu_hz=gpu.hz[[end]],
            emc_hz=np.array(truth.memory.levels_hz)[[end]],
            cores=cpu.cores,
        )
        for celsius in (40.0, 60.0):
            leaks_w = cpu.leakage_w * cpu_v2 + gpu.leakage_w * gpu_v2
            leaks_w *= float(leakage_factor(celsius))
            watts = (truth.base_w + memory[end] + cpu_w + gpu_w + leaks_w) * (1 + truth.loss)
            assert standing_power(outcome, at, celsius)[0] == pytest.approx(watts, rel=0.02)


def test_a_bandwidth_that_the_gpus_clock_hides_is_stated_as_a_bound() -> None:
    found = calibration("orin-nx").constants["memory.gb_per_s"]
    assert found.high[-1] == np.inf
    assert found.low[-1] <= found.value[-1]
    assert "no closer" in found.source


def test_what_an_emulated_board_gave_is_called_emulated_and_has_its_interval(outcome) -> None:
    found = outcome.constants["energy.pj_per_flop.fp32"]
    assert found.status == "emulated"
    assert "emulated" in found.source
    assert found.low < found.value < found.high
    assert outcome.constants["stacks.pytorch.launch_cycles"].status != "emulated"


def run_at(gpu_hz: float, emc_hz: float, rate: float) -> Run:
    return Run(
        hz={"gpu_hz": gpu_hz, "emc_hz": emc_hz}, cores=None, kernel=STREAMS[0],
        flop_rate=0.0, byte_rate=rate, power_w=1.0, power_se_w=0.0,
    )  # fmt: skip


def test_each_stream_tells_of_the_limit_that_was_the_lower_one() -> None:
    limits = {1e9: 30e9, 3e9: 90e9}
    runs = [
        run_at(gpu, emc, min(80 * gpu, limit))
        for gpu in (0.3e9, 0.6e9, 1.2e9)
        for emc, limit in limits.items()
    ]
    rates = fit_rates(runs, "gpu_hz")
    assert rates.bytes_per_clock is not None
    assert rates.bytes_per_clock.value == pytest.approx(80)
    assert {emc: each.value for emc, each in rates.bytes_per_s.items()} == pytest.approx(limits)


def test_of_a_clock_that_never_limits_only_the_least_is_told() -> None:
    rates = fit_rates([run_at(gpu, 1e9, 10e9) for gpu in (0.5e9, 1e9)], "gpu_hz")
    assert rates.bytes_per_clock is not None
    assert (rates.bytes_per_clock.low, rates.bytes_per_clock.high) == (20, np.inf)
    assert rates.bytes_per_s[1e9].value == pytest.approx(10e9)


def test_a_processor_that_computes_itself_is_fitted_by_its_own_clock() -> None:
    levels = tuple(f * 1e8 for f in range(8, 34, 2))
    board = plain_board("pc", "A PC", {"cpu": levels, "gpu": levels})
    curve, random, runs = Voltage((1.6e9, 3.2e9), (1.0, 1.4)), np.random.default_rng(0), []
    for hz in levels[::2]:
        v2 = float(curve.squared(np.array([hz]))[0])
        stream = min(10e9, 8 * hz)
        for kernel, flop, moved in (
            (None, 0.0, 0.0), (COMPUTE, 16 * hz, 0.0),
            (STREAMS[0], stream / 2, stream), (STREAMS[1], 0.0, stream),
        ):  # fmt: skip
            clocks_w = (0.5e-9 if kernel is None else 2e-9) * hz * v2
            power_w = 8 + clocks_w + 30e-12 * flop * v2 + 60e-12 * moved
            power_w *= 1 + 0.002 * random.standard_normal()
            runs.append(Run(
                hz={"cpu_hz": hz}, cores=None, kernel=kernel, flop_rate=flop, byte_rate=moved,
                power_w=power_w, power_se_w=0.0,
            ))  # fmt: skip
    rates = fit_rates(runs, "cpu_hz")
    power = fit_power(runs, "cpu_hz", board.cpu.cores, curves_of(board), known_terms(board))
    assert power.gpu is not None
    assert power.gpu.floor_hz.value == pytest.approx(curve.floor_hz, rel=0.05)
    assert power.terms["base"].value == pytest.approx(8, rel=0.05)
    for term, value in (("flop fp32", 30e-12), ("gpu clock", 2e-9)):
        found = power.terms[term]
        assert found.low is not None
        assert found.high is not None
        assert found.low < value < found.high
    made = calibrated(board, rates, power, Provenance("measured", "a test"))
    assert parse_board(format_board("A PC", made), "pc", "pc").gpu.bytes_per_clock == 8


@pytest.mark.parametrize("sharpness", [1.0, 3.0, 12.0])
def test_the_ridge_point_is_where_a_sweep_bends(sharpness: float) -> None:
    def swept(intensity: float, hz: float = 2e9) -> Run:
        peak, bandwidth = 100 * hz, 10e9
        slower = peak**-sharpness + (bandwidth * intensity) ** -sharpness
        rate = slower ** (-1 / sharpness)
        return Run(
            hz={"cpu_hz": hz}, cores=None, kernel=Kernel(purpose="mix", intensity=intensity),
            flop_rate=rate, byte_rate=rate / intensity, power_w=np.nan, power_se_w=np.nan,
        )  # fmt: skip

    sweep = [swept(intensity) for intensity in (0.5, 2, 8, 32, 128)]
    found = fit_ridge([*sweep, *(swept(each, 1e9) for each in (0.5, 2, 8, 32))])
    assert found is not None
    assert found.intensity == pytest.approx(20, rel=0.02)
    assert found.reached
    assert found.worst < 0.01
    assert fit_ridge(sweep[:3]) is None


def test_a_sweep_that_ends_before_it_bends_tells_only_the_least() -> None:
    runs = [
        replace(run_at(1e9, 1e9, 10e9), kernel=Kernel(purpose="mix"), flop_rate=10e9 * intensity)
        for intensity in (0.5, 1, 2, 4)
    ]
    found = fit_ridge(runs)
    assert found is not None
    assert not found.reached


def test_at_clocks_that_cannot_be_set_leakage_stays_part_of_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "as-is.toml"
    words = ["calibrate", "--device", "emulated:nano", "--read-only", "--quick", "-o", str(file)]
    assert main(words) == 0
    assert not [key for key in load_board(file).constants if key.startswith("leakage")]


# What is set, and put back ----------------------------------------------------------------


def test_an_interrupted_calibration_puts_the_clocks_back() -> None:
    board = ToyBoard()
    bench = SlowBench(board, fails_after=20)
    looks = plan(board.space, bench.kernels, "gpu_hz", 4)
    with pytest.raises(KeyboardInterrupt):
        Session(board, bench).run(looks, lambda _look: None)
    assert board.writes
    assert board.now_set == board.found


def test_at_the_present_clocks_nothing_is_written() -> None:
    board = ToyBoard()
    bench = SlowBench(board)
    looks = plan(None, bench.kernels, "gpu_hz", 8)
    runs = Session(board, bench, quick=True).run(looks, lambda _look: None)
    assert not board.writes
    assert [run.kernel for run in runs] == [None, *bench.kernels]
    assert {run.hz["gpu_hz"] for run in runs} == {board.found["gpu_hz"]}


def test_a_look_lasts_several_refreshes_of_however_slow_a_sensor() -> None:
    for refresh_s in (0.4, 2.0):
        board = ToyBoard(refresh_s=refresh_s)
        before_s = board.clock.now()
        Session(board, SlowBench(board)).run([Look(None, COMPUTE)], lambda _look: None)
        assert board.clock.now() - before_s > 6 * refresh_s


def test_a_look_while_the_board_throttles_is_dropped() -> None:
    class HotBench(SlowBench):
        def run(self, kernel: Kernel, seconds: float) -> Ran:
            self.board.throttles += 1
            return super().run(kernel, seconds)

    board = ToyBoard()
    session = Session(board, HotBench(board), quick=True)
    top = board.space.point(board.space.fastest)
    assert session.run([Look(top, COMPUTE)], lambda _look: None) == []
    assert session.dropped == {"throttled": 1}


def test_a_board_that_throttled_is_waited_for() -> None:
    board = ToyBoard()
    board.heat(GPU[0])
    bench = SlowBench(board)
    session = Session(board, bench, quick=True)
    look = Look(board.space.point(board.space.fastest), COMPUTE)
    assert session.run([look], lambda _look: None) == []
    assert session.dropped == {"not at the clocks asked for": 1}
    since_s = board.clock.now()
    cool = board.clock.sleep

    def cools_down(seconds: float) -> None:
        cool(seconds)
        if board.clock.now() > since_s + 2:
            board.cool()

    board.clock.sleep = cools_down
    assert len(session.run([look], lambda _look: None)) == 1


def test_each_run_has_its_temperature() -> None:
    board = ToyBoard(temperature_c=61.0)
    (run,) = Session(board, SlowBench(board), quick=True).run([Look(None, None)], print)
    assert run.celsius == 61.0


def test_without_sensors_that_can_be_read_it_says_which_rail() -> None:
    board = EmulatedBoard("nano")
    board.sample = lambda: SimpleNamespace(
        time_s=board.clock.now(), power_w={}, energy_j=None, temperature_c={}, throttle_events={}
    )
    with pytest.raises(DeviceError, match="no power on the rail"):
        Session(board, SlowBench(board)).run([Look(None, None)], lambda _look: None)


def test_the_plan_varies_each_clock_while_the_others_are_low() -> None:
    space = EmulatedBoard("tx2").space
    load = Kernel(purpose="cores", cores=6)
    looks = plan(space, (COMPUTE, *STREAMS, *MIXES, load), "gpu_hz", 6, warm=False)
    assert len(looks) == len(set(looks))
    levels = {knob.name: knob.levels for knob in space.knobs}
    at_compute = [look.point for look in looks if look.kernel == COMPUTE]
    assert len(at_compute) == 6
    assert {point["emc_hz"] for point in at_compute} == {levels["emc_hz"][0]}
    assert min(point["gpu_hz"] for point in at_compute) == levels["gpu_hz"][0]
    streams = [look.point for look in looks if look.kernel == STREAMS[1]]
    assert {point["emc_hz"] for point in streams} == set(levels["emc_hz"])
    assert all(point["cpu_hz"] < levels["cpu_hz"][-1] / 3 for point in streams)
    loaded = {look.point["cpu_hz"] for look in looks if look.kernel == load}
    assert {min(loaded), max(loaded)} == {levels["cpu_hz"][0], levels["cpu_hz"][-1]}


def test_the_same_idle_points_are_seen_cold_and_warm() -> None:
    space = EmulatedBoard("nano").space
    quick = plan(space, STREAMS, "gpu_hz", 4, warm=False)
    looks = plan(space, STREAMS, "gpu_hz", 4)
    start = next(at for at in range(len(looks)) if looks[at : at + len(quick)] == quick)
    cold, warm = looks[:start], looks[start + len(quick) :]
    idle = {look.point for look in warm if look.kernel is None}
    assert len(idle) == 4
    assert idle == {look.point for look in cold}


# What runs the kernels --------------------------------------------------------------------


def test_numpy_runs_anywhere_and_counts_what_it_did() -> None:
    bench, _ = open_bench("numpy")
    for kernel in bench.kernels:
        began_s = time.perf_counter()
        ran = bench.run(kernel, 0.02)
        assert 0.02 <= ran.seconds <= time.perf_counter() - began_s
        assert (ran.bytes > 0) == (kernel.purpose != "compute")
        assert (ran.flop > 0) == (kernel.purpose != "write")
        if kernel.purpose == "mix":
            assert ran.flop / ran.bytes == pytest.approx(kernel.intensity)


def test_wide_products_are_what_they_are_counted_as(torch: ModuleType) -> None:
    array = torch.ones(1024 * 512)
    for kernel, (call, flop, moved) in wide_products(array).items():
        result = call()
        width = result.shape[1]
        assert result.shape[0] == 1024
        assert torch.all(result == 512)
        assert flop == 2 * 1024 * 512 * width
        assert moved == 4 * (1024 * 512 + 1024 * width)
        assert kernel.intensity == flop / moved


def test_a_computer_that_no_file_describes_has_the_levels_of_its_clocks() -> None:
    board = plain_board("mine", "Mine", {"gpu": (1e9, 2e9), "memory": (3e9, 4e9)})
    assert board.gpu.levels_hz == (1e9, 2e9)
    assert board.modes[0].gpu_hz == 2e9
    assert board.memory.levels_hz == (3e9, 4e9)


def test_load_on_cores_lasts_as_long_as_asked_and_takes_their_time() -> None:
    used_s = time.process_time()
    ran = load_cores(1, 0.1)
    assert ran.seconds >= 0.1
    assert time.process_time() - used_s > 0
    assert (ran.flop, ran.bytes) == (0, 0)


class PycudaStandIn:
    """As much of pycuda's documented interface as is used: every launch takes a millisecond."""

    def __init__(self, capability: tuple[int, int]) -> None:
        self.now_ms, self.launches, self.freed, self.pushed = 0.0, [], 0, 0
        stand_in = self

        class Event:
            def record(self) -> None:
                self.at_ms = stand_in.now_ms

            def synchronize(self) -> None: ...

            def time_till(self, other: Event) -> float:
                return other.at_ms - self.at_ms

        class SourceModule:
            def __init__(self, source: str, *, no_extern_c: bool, options: list[str]) -> None:
                self.source = source

            def get_function(self, name: str):
                assert f"void {name}(" in self.source

                def launch(*arguments, block, grid) -> None:
                    stand_in.launches.append((name, arguments, block, grid))
                    stand_in.now_ms += 1.0

                return launch

        device = SimpleNamespace(
            retain_primary_context=lambda: SimpleNamespace(push=self.push, pop=self.pop),
            get_attribute=lambda attribute: 16,
            compute_capability=lambda: capability,
            name=lambda: "stand-in",
        )
        self.driver = ModuleType("pycuda.driver")
        self.driver.__dict__.update(
            Error=RuntimeError,
            init=lambda: None,
            Device=lambda number: device,
            device_attribute=SimpleNamespace(MULTIPROCESSOR_COUNT=16),
            mem_alloc=lambda size: SimpleNamespace(free=self.free),
            Event=Event,
        )
        self.compiler = ModuleType("pycuda.compiler")
        self.compiler.SourceModule = SourceModule

    def push(self) -> None:
        self.pushed += 1

    def pop(self) -> None:
        self.pushed -= 1

    def free(self) -> None:
        self.freed += 1


@pytest.fixture
def pycuda(monkeypatch, request) -> PycudaStandIn:
    stand_in = PycudaStandIn(getattr(request, "param", (8, 7)))
    monkeypatch.setitem(sys.modules, "pycuda", ModuleType("pycuda"))
    monkeypatch.setitem(sys.modules, "pycuda.driver", stand_in.driver)
    monkeypatch.setitem(sys.modules, "pycuda.compiler", stand_in.compiler)
    return stand_in


def test_pycuda_counts_the_work_of_each_launch(pycuda: PycudaStandIn) -> None:
    bench, refusals = open_bench("auto")
    assert not refusals
    threads = 16 * 16 * 256
    for kernel, flop, moved in (
        (COMPUTE, 16 * 4096 * threads, 0),
        (Kernel(purpose="compute", precision="fp16"), 32 * 4096 * threads, 0),
        (Kernel(purpose="compute", precision="fp16", unit="tensor"), 1024 * 4096 * threads, 0),
        (STREAMS[0], 2**26, 2**28),
        (STREAMS[1], 0, 2**28),
        (MIXES[1], (8 * 8 + 4) * 2**24, 2**28),
    ):
        pycuda.launches.clear()
        ran = bench.run(kernel, 0.05)
        assert ran.seconds == pytest.approx(1e-3 * len(pycuda.launches))
        assert ran.seconds >= 0.05
        assert ran.flop == pytest.approx(flop * len(pycuda.launches))
        assert ran.bytes == moved * len(pycuda.launches)
    bench.close()
    assert (pycuda.freed, pycuda.pushed) == (2, 0)


@pytest.mark.parametrize("pycuda", [(5, 2), (6, 2)], indirect=True)
def test_an_old_gpu_runs_what_it_has(pycuda: PycudaStandIn) -> None:
    bench, _ = open_bench("pycuda")
    units = {kernel.unit for kernel in bench.kernels}
    assert units == {"cuda"}
    assert [kernel.cores > 0 for kernel in bench.kernels if kernel.purpose == "cores"] == [True]


def test_kernels_that_cannot_be_compiled_are_refused_in_one_line(pycuda: PycudaStandIn) -> None:
    def no_compiler(*_args, **_kwargs):
        raise OSError("nvcc not found")

    pycuda.compiler.SourceModule = no_compiler
    with pytest.raises(DeviceError, match="nvcc not found"):
        open_bench("pycuda")
    assert pycuda.pushed == 0


def test_pytorch_without_cuda_is_refused(torch: ModuleType) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceError, match="sees no CUDA GPU"):
        open_bench("torch")


# The command ------------------------------------------------------------------------------


def test_it_runs_where_there_is_nothing_to_set_or_read(tmp_path, capsys) -> None:
    file = tmp_path / "here.toml"
    words = ["calibrate", "--quick", "--kernels", "numpy", "-o", str(file)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    if "times alone" in shown:
        assert load_board(file).constants["gpu.cuda_flop_per_clock.fp32"].status == "measured"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "board.txt"], "does not end in .toml"),
        (["-o", "/nowhere/board.toml"], "cannot be written"),
        (["--device", "emulated:phone"], "unknown board 'phone'"),
        (["--kernels", "opencl"], "unknown kernels 'opencl'"),
        (["--device", "emulated:nano", "--board", "phone"], "unknown board 'phone'"),
        (["--points", "2"], "points"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_set(words, message, capsys) -> None:
    assert main(["calibrate", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_cpu_that_is_no_gpu_is_not_taken_for_the_boards() -> None:
    with pytest.raises(InputError, match="choose one of auto, pycuda, torch, numpy"):
        open_bench("gpu")


@pytest.mark.parametrize("architecture", ["sm_75", "sm_87", "sm_90"])
def test_the_kernels_compile_for_turing_orin_and_hopper(architecture: str, tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc here; install NVIDIA's CUDA toolkit")
    source = Path(governor.calibration.__file__).parent / "kernels.cu"
    command = [nvcc, f"-arch={architecture}", "-cubin", "-o", str(tmp_path / "k.cubin"), source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr

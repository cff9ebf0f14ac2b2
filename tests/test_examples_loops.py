"""Loops of other shapes: each example runs as it is, its inferences seen, its board emulated."""

from __future__ import annotations

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from tensorrt_stand_in import WORK_S, install
from test_examples import EXAMPLES


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch):
    """Runs an example as a script in this process: each import is paid for once."""
    monkeypatch.syspath_prepend(EXAMPLES)

    def play(example: str, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [example, *arguments])
        runpy.run_path(str(EXAMPLES / example), run_name="__main__")

    return play


@pytest.mark.parametrize(
    ("example", "what", "needs"),
    [
        ("asyncio_loop.py", "inferences", ["torch"]),
        ("fastapi_service.py", "inferences", ["torch", "fastapi", "httpx"]),
        ("transformers_pipeline.py", "inferences", ["torch", "transformers"]),
        ("training_step.py", "steps", ["torch"]),
        ("llm_decode.py", "tokens", ["torch", "transformers"]),
    ],
)
def test_a_loop_is_governed_in_the_shadow_of_an_emulated_board(
    play, capsys: pytest.CaptureFixture[str], example: str, what: str, needs: list[str]
) -> None:
    for module in needs:
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed; python -m pip install {module}")
    play(example, "--seconds", "0.5")
    first, *rest = capsys.readouterr().out.splitlines()
    number, counted, _ = first.split(" ", 2)
    assert counted == what
    assert int(number) >= 1
    assert first.endswith("clocks and energy are EMULATED")
    if example == "llm_decode.py":
        by_stream = {line.split(":")[0] for line in rest}
        assert {"main", "first-token"} <= by_stream


@pytest.fixture
def loop(play, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs the TensorRT example against stand-ins; returns their log."""

    def loop(version: int, network: bytes = b"a network") -> list[str]:
        log = install(monkeypatch, version)
        (tmp_path / "net.onnx").write_bytes(network)
        arguments = [str(tmp_path / "net.onnx"), "--device", "emulated:agx-orin"]
        play("tensorrt_loop.py", *arguments, "--seconds", "0.2")
        return log

    return loop


@pytest.mark.parametrize(
    ("version", "network", "flags"),
    [(8, "network 1", ["flag FP16"]), (10, "network 0", ["flag FP16"]), (11, "network 0", [])],
)
def test_the_tensorrt_loop_keeps_to_the_api_of_each_version(
    loop, capsys: pytest.CaptureFixture[str], version: int, network: str, flags: list[str]
) -> None:
    log = loop(version)
    assert log[0] == network
    assert [line for line in log if line.startswith("flag")] == flags
    assert "profile {'images': (1, 3, 8, 8)}" in log
    assert {"address of images", "address of scores"} <= set(log)
    shown = capsys.readouterr().out
    assert int(shown.split(" ")[0]) >= 3
    assert "EMULATED" in shown
    on_gpu_ms = float(shown.split("on the GPU, median: ")[1].split(" ms")[0])
    assert on_gpu_ms >= 1e3 * WORK_S


def test_the_tensorrt_loop_says_what_is_wrong_with_a_network(loop) -> None:
    with pytest.raises(SystemExit, match="line 1: no network"):
        loop(10, b"something else")

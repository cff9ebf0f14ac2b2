"""A workload: a network, in a framework, at a precision; and the kernels that this makes.

A name such as ``yolov8n`` is the network in PyTorch's eager mode, as ``model(frame)`` runs it:
every operation is a kernel of its own, launched by the CPU. ``yolov8n-trt`` is the same network
compiled by TensorRT to half precision: normalisation, activation and residual additions run
inside the kernel that feeds them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from governor.devices.emulated.networks import NETWORKS, Op
from governor.errors import unknown_name
from governor.space import FloatArray

BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "int8": 1}
"""Bytes of an element, by precision (TF32 is FP32 in memory)."""

_PROBES = ("gemv-probe", "gemm-probe")


@dataclass(frozen=True, slots=True)
class Workload:
    """A network as a framework runs it.

    Attributes:
        network: a key of ``NETWORKS``.
        framework: ``pytorch``, ``onnxruntime`` or ``tensorrt``.
        precision: ``fp32``, ``tf32``, ``fp16`` or ``int8``.
        gemm_precision: that of matrix products, where it differs (PyTorch leaves them in fp32
            while cuDNN runs convolutions in TF32).
        host_cycles: CPU cycles an item that must pass before the GPU can start: its input is
            read, converted and copied. 0: the input lies in the GPU's memory already.
    """

    network: str
    framework: str = "pytorch"
    precision: str = "tf32"
    gemm_precision: str = ""
    host_cycles: float = 0.0

    @property
    def name(self) -> str:
        """The name that it can be emulated by; else what it is made of."""
        known = (name for name, each in _workloads().items() if each == self)
        return next(known, f"{self.network} ({self.framework}, {self.precision})")

    @property
    def ops(self) -> list[Op]:
        """The operations that become kernels, in order."""
        return _fused(NETWORKS[self.network](), self.framework)


@dataclass(frozen=True, slots=True)
class Probe(Workload):
    """A microbenchmark: one kernel of known work that reaches the hardware's peaks.

    Attributes:
        flops: of one launch, in ``precision``.
        moved_bytes: to or from memory, streamed past every cache.
    """

    network: str = "probe"
    framework: str = "microbenchmark"
    precision: str = "fp32"
    flops: float = 0.0
    moved_bytes: float = 0.0

    @property
    def ops(self) -> list[Op]:
        """The one kernel."""
        return [Op("probe", self.flops, self.moved_bytes / BYTES[self.precision], 0.0)]


@dataclass(frozen=True)
class Kernels:
    """A workload's kernels at one batch size, as arrays with one element a kernel.

    Attributes:
        kinds: shape ``(n,)``, names of :data:`Kind`.
        flops: shape ``(n,)``, per batch.
        widths: shape ``(n,)``, channels.
        activations, weights: shape ``(n,)``, elements read or written, per batch.
    """

    kinds: tuple[str, ...]
    flops: FloatArray
    widths: FloatArray
    activations: FloatArray
    weights: FloatArray


def _fused(ops: list[Op], framework: str) -> list[Op]:
    """What the framework launches: eager all, ONNX Runtime folds, TensorRT fuses."""
    if framework == "pytorch":
        return ops
    kept: list[Op] = []
    for op in ops:
        if op.folds:
            continue
        if framework == "tensorrt" and op.fuses and kept:
            extra = max(op.reads - op.writes, 0.0)
            last = kept[-1]
            kept[-1] = replace(last, flops=last.flops + op.flops, reads=last.reads + extra)
        else:
            kept.append(op)
    return kept


def kernels(workload: Workload, batch_size: int) -> Kernels:
    """The kernels of ``workload`` for batches of ``batch_size`` items."""
    ops = workload.ops
    return Kernels(
        kinds=tuple(op.kind for op in ops),
        flops=batch_size * np.array([op.flops for op in ops]),
        widths=np.array([op.width for op in ops]),
        activations=batch_size * np.array([op.reads + op.writes for op in ops]),
        weights=np.array([op.weights for op in ops]),
    )


@cache
def _workloads() -> dict[str, Workload]:
    networks = [name for name in NETWORKS if name not in _PROBES]
    eager = {name: Workload(name, "pytorch", "tf32", gemm_precision="fp32") for name in networks}
    compiled = {f"{name}-trt": Workload(name, "tensorrt", "fp16") for name in networks}
    return eager | compiled


def workload_names() -> list[str]:
    """The workloads that can be emulated by name."""
    return list(_workloads())


def load_workload(name: str) -> Workload:
    """The workload called ``name``.

    Raises:
        InputError: no such workload; the message lists those there are.
    """
    try:
        return _workloads()[name]
    except KeyError:
        raise unknown_name("workload", name, workload_names()) from None

"""ONNX Runtime: each ``InferenceSession.run`` is an inference.

All the blocking ways to run one return when the outputs are there, on a GPU as well, so the
host's clock times them. ``run_async`` returns at once and is not seen.
"""

from __future__ import annotations

from types import ModuleType

from governor.instrument.framework import Framework

RUNS = ("run", "run_with_iobinding", "run_with_ort_values", "run_with_ortvaluevector")


class OnnxRuntime(Framework):
    """Sessions of ONNX Runtime."""

    name = "onnxruntime"
    module = "onnxruntime"

    def open(self, module: ModuleType) -> None:
        """Replace the methods where they are defined: subclasses that override call them."""
        session = module.InferenceSession
        for name in RUNS:
            owner = next((one for one in session.__mro__ if name in vars(one)), session)
            self.time_calls(owner, name)

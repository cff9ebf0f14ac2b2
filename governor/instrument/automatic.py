"""Which frameworks are seen by themselves inside a block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from governor.errors import InputError
from governor.instrument.explicit import SpanRecorder
from governor.instrument.onnxruntime import OnnxRuntime
from governor.instrument.opencv import OpenCV
from governor.instrument.tensorrt import TensorRT
from governor.instrument.torch import Torch

Instrument: TypeAlias = Literal["auto", "off"] | Sequence[str]

FRAMEWORKS = {one.name: one for one in (Torch(), TensorRT(), OnnxRuntime(), OpenCV())}
"""One each for the whole process: what they change is the process's."""


class Automatic:
    """Lets a recorder know of the inferences of some frameworks.

    A framework that the application imports later is seen from about a tenth of a second after
    its import, when spans are collected next.
    """

    def __init__(self, recorder: SpanRecorder, names: Sequence[str]) -> None:
        self._recorder = recorder
        self._frameworks = [FRAMEWORKS[name] for name in names]

    def begin(self) -> None:
        """Begin to look. Imports nothing."""
        if self._frameworks:
            for framework in self._frameworks:
                framework.listen(self._recorder)
            self._recorder.before_drain = self._look

    def end(self) -> None:
        """Leave every framework exactly as it was. May be called twice."""
        for framework in self._frameworks:
            framework.forget(self._recorder)

    def _look(self) -> None:
        for framework in self._frameworks:
            framework.look()


def parse_instrument(instrument: Instrument) -> tuple[str, ...]:
    """The names of the frameworks that are meant; ``"auto"`` means all.

    Raises:
        InputError: no framework has this name.
    """
    if instrument == "off":
        return ()
    if instrument == "auto":
        return tuple(FRAMEWORKS)
    names = () if isinstance(instrument, str) else tuple(instrument)
    if not names or any(name not in FRAMEWORKS for name in names):
        raise InputError(
            f"instrument must be 'auto', 'off' or names among {', '.join(FRAMEWORKS)}, "
            f"got {instrument!r}"
        )
    return names

"""A framework whose inferences are seen without the application's doing.

A framework is patched while at least one recorder listens to it, and only once the application
itself has imported it. Nothing here imports one. When the last recorder leaves, every attribute
is the very object that it was.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import AsyncGeneratorType, CoroutineType, GeneratorType, ModuleType
from typing import Any, ClassVar

from governor.instrument.explicit import Inference, SpanRecorder, open_span

LAZY = (GeneratorType, AsyncGeneratorType, CoroutineType)
"""What a call returns that has done nothing yet; its work is seen when that is run."""
logger = logging.getLogger("governor")


class Seam:
    """An attribute of a class that is replaced for a while."""

    def __init__(self, owner: Any, name: str, replacement: object) -> None:
        """Replaces it at once.

        Raises:
            TypeError: the class cannot be changed.
        """
        self._owner = owner
        self._name = name
        self._replacement = replacement
        own: Mapping[str, object] = owner.__dict__
        self._own: object = own.get(name, self)  # self: it is inherited
        setattr(owner, name, replacement)

    def close(self) -> None:
        """Put back what was there, unless someone else has laid something over it since."""
        own: Mapping[str, object] = self._owner.__dict__
        if own.get(self._name) is not self._replacement:
            return
        if self._own is self:
            delattr(self._owner, self._name)
        else:
            setattr(self._owner, self._name, self._own)


class SeenInference(Inference):
    """An inference that was seen: it counts only while the application shows none by itself."""

    __slots__ = ()

    def __enter__(self) -> None:
        if not self.recorder.marked and open_span() is None:
            self.open()

    def defer(self) -> tuple[SpanRecorder, float, float, int]:
        """Stop without recording: recorder, start, end and items, for who knows the end later."""
        recorder, items = self.recorder, self._count
        self.cancel()
        return recorder, self._start_s, recorder.now(), items

    def cancel(self) -> None:
        """It was none: neither counted nor failed."""
        self.counts = False
        self.recorder.open_since.pop(self, None)


class Framework:
    """What one framework needs to be seen.

    Attributes:
        name: as a user writes it.
        module: the import that brings it.
        recorders: who listens; the latest to begin is told. Replaced, never changed, so that a
            call in another thread sees one or the other.
    """

    name: ClassVar[str]
    module: ClassVar[str]

    def __init__(self) -> None:
        self.recorders: tuple[SpanRecorder, ...] = ()
        self._seams: list[Seam] = []
        self._is_open = False
        self._gave_up = False

    def listen(self, recorder: SpanRecorder) -> None:
        """Begin to tell ``recorder``."""
        with _lock:
            self.recorders += (recorder,)
            _listened_to.add(self)
        self.look()

    def forget(self, recorder: SpanRecorder) -> None:
        """Tell it no more; the last one to leave puts everything back."""
        with _lock:
            self.recorders = tuple(one for one in self.recorders if one is not recorder)
            if not self.recorders:
                self._gave_up = False
                self._close()

    def look(self) -> None:
        """Open the framework once the application has imported it. Cheap; called all the time."""
        with _lock:
            if not self.recorders or self._is_open or self._gave_up:
                return
            module = imported(self.module)
            if module is not None:
                self._is_open = True
                self._open_safely(module)

    def _open_safely(self, module: ModuleType) -> None:
        """A version that is not what it was taken for must not stop the application."""
        try:
            self.open(module)
        except Exception as error:
            self._gave_up = True
            with suppress(Exception):
                self._close()
            logger.warning(
                "%s %s cannot be seen by itself (%r); mark each inference with gov.watch, "
                "gov.inference or gov.tick",
                self.module, getattr(module, "__version__", ""), error,
            )  # fmt: skip

    def open(self, module: ModuleType) -> None:
        """Put the seams in. ``module`` is imported."""
        raise NotImplementedError

    def close(self) -> None:
        """Take out what :meth:`open` put in besides seams."""

    def abandon(self) -> None:
        """In a forked child: nobody listens there."""
        for recorder in self.recorders:
            recorder.abandon()
        self.recorders = ()
        self._close()

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            try:
                self.close()
            finally:
                while self._seams:
                    self._seams.pop().close()

    def seam(self, owner: Any, name: str, replacement: object) -> bool:
        """Replace an attribute until the framework is closed; whether its class allows that."""
        try:
            self._seams.append(Seam(owner, name, replacement))
        except TypeError:
            return False
        return True

    def time_calls(self, owner: Any, name: str) -> bool:
        """Let each call of a method that returns when the work is done be an inference."""
        return hasattr(owner, name) and self.seam(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            recorders = self.recorders
            if not recorders:
                return original(*args, **kwargs)
            with SeenInference(recorders[-1], None):
                return original(*args, **kwargs)

        return call


def imported(name: str) -> ModuleType | None:
    """A module that the application has imported, and not one that is just being imported."""
    module = sys.modules.get(name)
    if module is None or getattr(module.__spec__, "_initializing", False):
        return None
    return module


_lock = threading.RLock()
_listened_to: set[Framework] = set()


def _after_fork() -> None:
    """A child has none of its parent's threads: nobody listens, and the lock may be held."""
    global _lock
    _lock = threading.RLock()
    for framework in _listened_to:
        framework.abandon()


os.register_at_fork(after_in_child=_after_fork)

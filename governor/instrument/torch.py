"""PyTorch: each outermost call of a ``torch.nn.Module`` is an inference.

TorchScript and ``torch.compile``\\ d modules are modules, too. What is used is the place at which
PyTorch itself puts another implementation of a module's call: ``_compiled_call_impl``, None in
the class, and set by ``module.compile()`` in an instance. On the class it shows every call, of
which an inference has hundreds; so the class is listened to only until the outermost modules are
known, and then they alone are. The place was chosen over hooks because a module's hooks get into
its copies and pickles, are compiled by ``torch.jit.script`` and do not see exceptions, and global
ones make Dynamo leave its short way and warn; and over replacing ``Module.__call__`` because
``torch.compile`` keeps what that is bound to. ``docs/instrumentation.md`` has the times.

A training step is not its forward pass: where an optimizer steps, the time from one step to the
next is what counts.
"""

from __future__ import annotations

import functools
import gc
import threading
import time
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

from governor.instrument.explicit import innermost
from governor.instrument.framework import LAZY, Framework, Seam, SeenInference, imported
from governor.instrument.gpu import GpuTimer

PLACE = "_compiled_call_impl"
INNER = "governor_inner"
"""Where our function in a module keeps what it replaced; so it is also known for ours."""
LISTEN_S = 1.0
"""So long every module is listened to, to learn which are the outermost."""
AGAIN_S = 10.0
"""After so long all are listened to once more: models come and go."""
SILENT_S = 1.0
"""And whenever the known ones have not been called for so long."""


class Torch(Framework):
    """Modules of PyTorch."""

    name = "torch"
    module = "torch"

    def open(self, module: ModuleType) -> None:
        """Listen to every module at first."""
        self._torch: Any = module
        self._class: Any = module.nn.Module
        self._known: list[weakref.ref[Any]] = []
        self._seen_s = 0.0
        self._listens_until_s = 0.0
        self._listening: Seam | None = None
        self._noting = threading.Lock()
        self._everywhere = self._on_every_module()
        self._timer = GpuTimer(TorchEvents(module))
        self._step_hook: Any = None
        self._listen()
        self._watch_compiled()
        self._watch_optimizers()

    def look(self) -> None:
        """Leave the modules that are not outermost alone, and listen to them again at times."""
        super().look()
        if not self._is_open:
            return
        self._timer.collect()
        if not hasattr(self._class, PLACE):
            return
        now_s = time.perf_counter()
        if self._listening is not None:
            if now_s > self._listens_until_s and self._seen_s > 0.0:
                self._stop_listening()
        elif now_s > self._listens_until_s + AGAIN_S or now_s > self._seen_s + SILENT_S:
            self._listen()
        self._known = [one for one in self._known if one() is not None]

    def close(self) -> None:
        """Leave the modules and the optimizers as they were."""
        self._timer.collect()
        self._stop_listening()
        for known in self._known:
            module = known()
            if module is not None:
                _restore(module)
        self._known = []
        if self._step_hook is not None:
            self._step_hook.remove()

    def _listen(self) -> None:
        self._listens_until_s = time.perf_counter() + LISTEN_S
        # before PyTorch 2.1 the class has no such place, and is listened to all the time
        place = PLACE if hasattr(self._class, PLACE) else "__call__"
        self._listening = Seam(self._class, place, self._everywhere)

    def _stop_listening(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.close()

    def _on_every_module(self) -> Callable[..., Any]:
        """What stands in the class: passes on all but the outermost call."""

        def call(module: Any, /, *args: Any, **kwargs: Any) -> Any:
            span = innermost.get()
            if (span is not None and span.counts) or not self.recorders:
                return module._call_impl(*args, **kwargs)
            if hasattr(self._class, PLACE):
                self._take_note_of(module)
            return self._run(module._call_impl, args, kwargs)

        return call

    def _take_note_of(self, module: Any) -> None:
        """From now on listen to this module by itself."""
        where = weakref.ref(module)  # the module must not hold itself, and its memory with it
        own: dict[str, Any] = module.__dict__

        def call(*args: Any, **kwargs: Any) -> Any:
            run: Any = where()._call_impl if inner is None else inner  # pyright: ignore[reportOptionalMemberAccess]
            span = innermost.get()
            if (span is not None and span.counts) or not self.recorders:
                return run(*args, **kwargs)
            return self._run(run, args, kwargs)

        _hide_from_dynamo(call, self._everywhere, self._run)
        with self._noting:
            inner = own.get(PLACE)
            if not hasattr(inner, INNER):
                setattr(call, INNER, inner)
                own[PLACE] = call
                self._known.append(where)

    def _watch_compiled(self) -> None:
        """Take note of modules with ``module.compile()``: the class does not see their calls."""
        compile_module = getattr(self._class, "compile", None)
        if compile_module is not None:

            @functools.wraps(compile_module)
            def compile_and_note(module: Any, *args: Any, **kwargs: Any) -> None:
                compile_module(module, *args, **kwargs)
                self._take_note_of(module)

            self.seam(self._class, "compile", compile_and_note)
        if imported("torch._dynamo") is not None:
            for one in gc.get_objects():
                if issubclass(type(one), self._class) and PLACE in vars(one):
                    self._take_note_of(one)

    def _watch_optimizers(self) -> None:
        optimizers: Any = imported("torch.optim.optimizer")
        register = getattr(optimizers, "register_optimizer_step_post_hook", None)
        if register is not None:
            self._step_hook = register(self._stepped)

    def _stepped(self, *_: Any) -> None:
        recorders = self.recorders
        if recorders:
            recorders[-1].turn()

    def _run(self, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A call of a module that no other span is around."""
        recorders = self.recorders
        if not recorders:
            return run(*args, **kwargs)
        span = SeenInference(recorders[-1], None)
        span.__enter__()
        self._seen_s = time.perf_counter()
        stream = self._stream() if span.counts and recorders[-1].in_real_time else None
        key = None if stream is None else (stream.device_index, stream.cuda_stream)
        began = None if key is None else self._timer.begin(stream, key)
        try:
            result: Any = run(*args, **kwargs)
        except BaseException:
            span.end(completed=False)
            raise
        if type(result) in LAZY:
            span.cancel()
        elif began is None:
            span.end(completed=True)
        else:
            self._timer.end(span, stream, key, began)
        return result

    def _stream(self) -> Any | None:
        """The current CUDA stream; None where this process has not begun to use CUDA."""
        cuda = self._torch.cuda
        if self._timer.failed:
            return None
        try:
            if not cuda.is_initialized() or cuda.is_current_stream_capturing():
                return None
            return cuda.current_stream()
        except Exception as error:  # an earlier kernel's: the application's own call will meet it
            self._timer.fail(error)
            return None


class TorchEvents:
    """``torch.cuda.Event``."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch

    def record(self, stream: Any, spare: Any | None) -> Any:
        """An event on a ``torch.cuda.Stream``."""
        event = self._torch.cuda.Event(enable_timing=True) if spare is None else spare
        event.record(stream)
        return event

    def done(self, event: Any) -> bool:
        """Whether the stream is past it."""
        return event.query()

    def between_s(self, first: Any, second: Any) -> float:
        """PyTorch counts in milliseconds."""
        return first.elapsed_time(second) / 1e3


def _restore(module: Any) -> None:
    """Put back what stood in the module, unless it was compiled anew since."""
    own: dict[str, Any] = module.__dict__
    call = own.get(PLACE)
    if hasattr(call, INNER):
        inner = getattr(call, INNER)
        if inner is None:
            del own[PLACE]
        else:
            own[PLACE] = inner


def _hide_from_dynamo(*functions: Any) -> None:
    """Let Dynamo, where it is in use, go past these to what they call, as past PyTorch's own."""
    skip_code = getattr(imported("torch._dynamo.eval_frame"), "skip_code", None)
    if skip_code is not None:
        for function in functions:
            skip_code(function.__code__)

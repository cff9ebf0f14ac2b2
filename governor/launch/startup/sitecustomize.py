"""Run by the interpreter of a program that ``governor run`` starts, before the program.

Python imports a module of this name from its path when it starts. This one puts everything back
as the program would have found it without, lets a sitecustomize that it hides run, and begins to
govern. It must work in any Python, also in one without energy-governor, to say so.
"""

import json
import os
import sys


def _step_aside(pythonpath: "str | None") -> None:
    """The program and its children find the environment and the path that they would have."""
    if pythonpath is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = pythonpath
    here = os.path.dirname(__file__)
    sys.path[:] = [folder for folder in sys.path if folder != here]
    ours = sys.modules.pop(__name__)
    try:
        __import__(__name__)
    except ModuleNotFoundError as error:
        if error.name != __name__:
            raise
    finally:
        sys.modules.setdefault(__name__, ours)


def _begin(asked: str) -> None:
    options = json.loads(asked)
    _step_aside(options.pop("pythonpath"))
    try:
        from governor.launch.inside import begin
    except ImportError as error:
        print(
            f"governor: {sys.executable} cannot govern itself ({error}); install energy-governor "
            "for it, or start the program with the Python that has it",
            file=sys.stderr,
        )
        os._exit(2)
    begin(options)


if "GOVERNOR_RUN" in os.environ:
    _begin(os.environ.pop("GOVERNOR_RUN"))

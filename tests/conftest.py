"""What every test may use: measured sweeps and optional packages, or a skip that says why."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent

# The same examples on every run; --hypothesis-profile=explore looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def traces() -> Path:
    """The folder of measured sweeps; they are others' data and no part of this project."""
    named = os.environ.get("GOVERNOR_TRACES")
    folder = Path(named) if named else ROOT.parent / "shared" / "data" / "traces"
    if not any(folder.glob("*.csv")):
        pytest.skip(f"no measured sweeps in {folder}; set GOVERNOR_TRACES to their folder")
    return folder


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """PyTorch; an extra that a test of the core does not need."""
    return _optional("torch", "torch")


@pytest.fixture(scope="session")
def cv2() -> ModuleType:
    """OpenCV, which the examples read video with."""
    return _optional("cv2", "opencv-python-headless")


def _optional(module: str, distribution: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError:
        pytest.skip(f"{module} is not installed; python -m pip install {distribution}")

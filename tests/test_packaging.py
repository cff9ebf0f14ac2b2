"""What a user gets: a wheel with its data, a console script, an import that stays light."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import metadata, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHIPPED = ("governor", "policies", "pyproject.toml", "README.md", "LICENSE")
HEAVY = {
    "matplotlib",
    "prometheus_client",
    "pydantic",
    "rich",
    "scipy",
    "sklearn",
    "skopt",
    "sqlalchemy",
    "torch",
    "typer",
}


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built in a copy so that no build folder is left in it."""
    copy = tmp_path_factory.mktemp("tree")
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    built = tmp_path_factory.mktemp("wheel")
    run(
        sys.executable, "-m", "pip", "wheel", copy, "--no-deps", "--no-build-isolation", "-w", built
    )
    return next(built.glob("energy_governor-*.whl"))


def test_the_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in ("governor", "policies")
        for path in (ROOT / package).rglob("*")
        if path.suffix in {".py", ".toml", ".json"} or path.name == "py.typed"
    }
    assert expected <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_no_tests_or_examples(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"governor", "policies"}


def test_the_wheel_carries_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        licence = next(name for name in archive.namelist() if name.endswith("/LICENSE"))
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()


def test_the_console_script_works_from_the_wheel_in_a_fresh_environment(
    wheel: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel)
    # The dependencies are lent by this environment; a path file gives them to the fresh one,
    # after its own packages and without this environment's editable installs.
    purelib = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    lent = sysconfig.get_path("purelib") + "\n"
    Path(str(purelib).strip(), "lent.pth").write_text(lent)
    assert "demo" in run(tmp_path / "env" / "bin" / "governor", "--help")


def test_importing_governor_stays_light() -> None:
    code = "import sys, governor; governor.EnergyGovernor; print(*sys.modules)"
    loaded = {name.split(".")[0] for name in run(sys.executable, "-c", code).split()}
    assert "numpy" in loaded
    assert not HEAVY & loaded


def test_the_changelog_describes_this_version() -> None:
    released = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released is not None
    assert released.group(1) == version("energy-governor")


def test_torch_is_only_an_extra() -> None:
    requirements = metadata("energy-governor").get_all("Requires-Dist") or []
    torch = [line for line in requirements if line.startswith("torch")]
    assert torch
    assert all('extra == "torch"' in line for line in torch)


def test_the_lock_pins_what_the_project_requires_and_names_no_index() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    pinned = {name.lower() for name in re.findall(r"^([A-Za-z0-9_.-]+)==", lock, re.MULTILINE)}
    wanted = {
        re.split(r"[^A-Za-z0-9_.-]", line)[0].lower()
        for line in metadata("energy-governor").get_all("Requires-Dist") or []
        if "extra" not in line or re.search(r"extra == .(test|report)", line)
    }
    assert wanted - {"typing-extensions"} <= pinned
    assert "://" not in lock
    assert "torch" not in pinned

"""The deployment files say what their formats allow, and give no more rights than needed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from governor.cli.main import command_names
from governor.sidecar.server import SOCKET

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
COMPOSE = sorted(DEPLOY.rglob("compose.yml"))


def optional(module, distribution):
    try:
        return import_module(module)
    except ImportError:
        pytest.skip(f"{module} is not installed; python -m pip install {distribution}")


def documents(path):
    yaml = optional("yaml", "pyyaml")
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def pods():
    """By name, the pod of each workload."""
    found = {}
    for path in MANIFESTS:
        for document in documents(path):
            template = document.get("spec", {}).get("template")
            if template:
                found[document["metadata"]["name"]] = template["spec"]
    return found


# each file, by its format's own rules


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_takes_the_manifest(path):
    kubernetes_validate = optional("kubernetes_validate", "kubernetes-validate")
    for document in documents(path):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_kubernetes_would_refuse_a_misspelt_field():
    kubernetes_validate = optional("kubernetes_validate", "kubernetes-validate")
    document = documents(MANIFESTS[0])[-1]
    document["spec"]["template"]["spec"]["hostPID_"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_compose_takes_the_file(path):
    jsonschema = optional("jsonschema", "jsonschema")
    found = find_spec("compose")
    if found is None or not found.submodule_search_locations:
        pytest.skip("no compose schema; python -m pip install --no-deps docker-compose==1.29.2")
    schema = Path(found.submodule_search_locations[0], "config", "compose_spec.json")
    (document,) = documents(path)
    jsonschema.Draft7Validator(json.loads(schema.read_text())).validate(document)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_takes_the_unit(path, tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed; apt-get install systemd")
    for unit in UNITS:  # the program is not where it will be installed
        text = unit.read_text().replace("/opt/energy-governor/bin/governor", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / path.name],
        capture_output=True,
        text=True,
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin"},
    )
    said = [line for line in done.stderr.splitlines() if "energy-governor" in line]
    assert (done.returncode, said) == (0, [])


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_system_calls_are_denied_by_groups_that_every_jetpacks_systemd_knows(path):
    """A list of what is allowed, by a group that is not known there, would allow nothing."""
    (words,) = re.findall(r"^SystemCallFilter=(.+)$", path.read_text(), re.M)
    assert words.startswith("~")
    assert set(words[1:].split()) == {
        "@clock", "@cpu-emulation", "@debug", "@module", "@mount", "@obsolete", "@raw-io",
        "@reboot", "@swap",
    }  # fmt: skip
    assert "\nSystemCallErrorNumber=EPERM\n" in path.read_text()


# what they start exists


@pytest.mark.parametrize(
    "path", [*UNITS, *MANIFESTS, DEPLOY / "docker" / "compose.yml"], ids=lambda path: path.name
)
def test_every_command_and_option_that_is_used_exists(path):
    text = "\n".join(line.partition("#")[0] for line in path.read_text().splitlines())
    commands = re.findall(r"bin/governor (\w+)|^\s+- (sidecar|daemon)$", text, flags=re.M)
    assert {name for names in commands for name in names if name} <= set(command_names())
    sources = (ROOT / "governor" / "cli" / f"{name}.py" for name in ("sidecar", "daemon"))
    known = "".join(source.read_text() for source in sources)
    for option in re.findall(r"--(latency-slo|socket|metrics|app|source|interval|\w+-\w+)\b", text):
        assert f"    {option.replace('-', '_')}: " in known, option


def test_the_image_has_all_that_the_package_is_built_of():
    copied = re.findall(r"^COPY (.+) \S+$", (DEPLOY / "docker" / "Dockerfile").read_text(), re.M)
    names = {name for line in copied for name in line.split()}
    assert {"pyproject.toml", "README.md", "LICENSE", "governor", "policies"} <= names
    assert all((ROOT / name).exists() for name in names)


# least privilege


def test_only_the_keeper_may_write_to_the_board():
    for name, pod in pods().items():
        for container in pod["containers"]:
            mounts = {mount["mountPath"]: mount for mount in container.get("volumeMounts", ())}
            assert not [path for path in mounts if path == "/sys" or path.startswith("/sys/")]
            writable = "/host/sys" in mounts and not mounts["/host/sys"].get("readOnly")
            assert writable == (container["name"] == "keeper"), (name, container["name"])


def test_every_container_of_ours_sees_the_board_under_the_root_it_is_given():
    """Runtimes mask /sys/firmware, to which /proc/device-tree leads, in a container's own /sys."""
    (compose,) = documents(DEPLOY / "docker" / "compose.yml")
    given = {
        name: (service["command"], [volume.split(":")[1] for volume in service["volumes"]])
        for name, service in compose["services"].items()
        if name != "pipeline"
    }
    for name, pod in pods().items():
        for container in pod["containers"]:
            if "energy-governor" in container["image"]:
                paths = [mount["mountPath"] for mount in container["volumeMounts"]]
                given[f"pod {name}"] = container["args"], paths
    assert set(given) == {"keeper", "sidecar", "pod keeper", "pod detector"}
    for words, paths in given.values():
        assert {"--sysfs-root=/host", "--device=jetson:/host"} & set(words)
        assert {"/host/sys", "/host/proc/device-tree"} <= set(paths)


def test_no_container_is_privileged_or_gains_rights():
    for pod in pods().values():
        assert pod["automountServiceAccountToken"] is False
        assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert not security.get("privileged")
            if "energy-governor" in container["image"]:
                assert security["readOnlyRootFilesystem"]
                assert security["capabilities"]["drop"] == ["ALL"]
                assert set(security["capabilities"].get("add", ())) <= {"CHOWN"}


def test_our_compose_services_have_no_rights_to_spare():
    (document,) = documents(DEPLOY / "docker" / "compose.yml")
    for name in ("keeper", "sidecar"):
        service = document["services"][name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert not service.get("privileged")
    assert document["services"]["keeper"]["network_mode"] == "none"
    assert all(port.startswith("127.0.0.1:") for port in document["services"]["sidecar"]["ports"])


def test_the_sidecars_unit_is_neither_root_nor_has_capabilities():
    text = (DEPLOY / "systemd" / "energy-governor-sidecar.service").read_text()
    for line in ("DynamicUser=yes", "CapabilityBoundingSet=", "ProtectSystem=strict",
                 "NoNewPrivileges=yes", "Group=governor"):  # fmt: skip
        assert f"\n{line}\n" in text
    assert SOCKET.name in text

"""The built-in networks are the published ones, and run."""

from __future__ import annotations

from types import ModuleType

import pytest

from governor.errors import InputError
from governor.workloads import load_workload, workload_names

# Parameters as the papers' own code and torchvision's model pages give them; YOLOv8n's and
# YOLOv4-tiny's from their repositories' tables; the LSTM's from its sizes.
PARAMETERS = {
    "alexnet": 61_100_840,
    "vgg-19": 143_667_240,
    "resnet-18": 11_689_512,
    "resnet-50": 25_557_032,
    "mobilenet-v2": 3_504_872,
    "mobilenet-v3": 5_483_032,
    "yolov4-tiny": 6_056_606,
    "yolov8n": 3_157_200,
    "bert-tiny": 4_385_920,
    "distilbert": 66_362_880,
    "bert-large": 335_141_888,
    "lstm": 29423 * 256 + 29423 + 2 * (2 * 4 * 256 * 256 + 2 * 4 * 256),
}


def test_each_has_its_published_number_of_parameters(torch: ModuleType) -> None:
    with torch.device("meta"):
        counted = {
            name: sum(p.numel() for p in load_workload(name).build().parameters())
            for name in workload_names()
        }
    assert counted == PARAMETERS


@pytest.mark.parametrize(
    ("name", "item", "shape"),
    [
        ("mobilenet-v3", (3, 64, 64), (2, 1000)),
        ("resnet-18", (3, 64, 64), (2, 1000)),
        ("yolov8n", (3, 64, 64), (2, 84, 84)),
        ("lstm", (4,), (2, 4, 29423)),
    ],
)
def test_one_runs_on_its_example_input(
    torch: ModuleType, name: str, item: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    workload = load_workload(name)
    with torch.inference_mode():
        assert tuple(workload.build()(workload.example(2, item)).shape) == shape


def test_yolov4_tiny_predicts_at_two_scales(torch: ModuleType) -> None:
    workload = load_workload("yolov4-tiny")
    with torch.inference_mode():
        far, near = workload.build()(workload.example(1, (3, 64, 64)))
    assert (far.shape[1:], near.shape[1:]) == ((255, 2, 2), (255, 4, 4))


def test_an_unknown_network_is_refused_by_naming_those_there_are() -> None:
    with pytest.raises(InputError, match="alexnet"):
        load_workload("alexnet2")

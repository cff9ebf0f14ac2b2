"""Which networks there are, and what one item of their input looks like."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

from governor.errors import MissingExtraError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Workload:
    """A network by name, and its input.

    Attributes:
        title: what it is, in a few words.
        item_shape: of one item: channels, height, width; or tokens.
        vocabulary: token numbers are below it; 0: the input is an image.
    """

    name: str
    title: str
    module: str
    builder: str
    arguments: tuple[object, ...]
    item_shape: tuple[int, ...]
    vocabulary: int = 0

    def build(self) -> nn.Module:
        """The network with random weights, in evaluation mode.

        Raises:
            MissingExtraError: PyTorch is not installed.
        """
        try:
            module = import_module(f"governor.workloads.{self.module}")
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise MissingExtraError("torch", "torch") from error
        return cast("nn.Module", getattr(module, self.builder)(*self.arguments)).eval()

    def example(self, batch_size: int = 1, item_shape: tuple[int, ...] | None = None) -> Tensor:
        """A batch of input: noise, or random tokens."""
        import torch

        shape = (batch_size, *(item_shape or self.item_shape))
        if self.vocabulary:
            return torch.randint(self.vocabulary, shape)
        return torch.rand(shape)


_IMAGE = (3, 224, 224)
_BERT_WORDS = 30522
_WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("alexnet", "AlexNet, 224 x 224", "classic", "AlexNet", (), _IMAGE),
        Workload("vgg-19", "VGG-19, 224 x 224", "classic", "Vgg", ((2, 2, 4, 4, 4),), _IMAGE),
        Workload("resnet-18", "ResNet-18, 224 x 224", "resnet", "ResNet", ((2,) * 4, 1), _IMAGE),
        Workload(
            "resnet-50", "ResNet-50, 224 x 224", "resnet", "ResNet", ((3, 4, 6, 3), 4), _IMAGE
        ),
        Workload("mobilenet-v2", "MobileNetV2, 224 x 224", "mobilenet", "MobileNetV2", (), _IMAGE),
        Workload(
            "mobilenet-v3", "MobileNetV3-large, 224 x 224", "mobilenet", "MobileNetV3", (), _IMAGE
        ),
        Workload(
            "yolov4-tiny", "YOLOv4-tiny, 416 x 416", "yolov4_tiny", "YoloV4Tiny", (), (3, 416, 416)
        ),
        Workload("yolov8n", "YOLOv8n, 640 x 640", "yolov8", "YoloV8n", (), (3, 640, 640)),
        Workload(
            "bert-tiny", "BERT-tiny, 128 tokens", "bert", "Bert", (2, 128, 2), (128,), _BERT_WORDS
        ),
        Workload(
            "distilbert", "DistilBERT, 128 tokens", "bert", "Bert", (6, 768, 12, False), (128,),
            _BERT_WORDS,
        ),
        Workload(
            "bert-large", "BERT-large, 128 tokens", "bert", "Bert", (24, 1024, 16), (128,),
            _BERT_WORDS,
        ),
        Workload(
            "lstm", "LSTM language model, 8 tokens", "lstm", "Lstm", (29423, 256, 2), (8,), 29423
        ),
    )
}  # fmt: skip


def workload_names() -> list[str]:
    """The built-in networks."""
    return list(_WORKLOADS)


def load_workload(name: str) -> Workload:
    """The built-in network called ``name``.

    Raises:
        InputError: no such network; the message lists those there are.
    """
    try:
        return _WORKLOADS[name]
    except KeyError:
        raise unknown_name("workload", name, _WORKLOADS) from None

"""OpenCV: each ``forward`` of a ``cv2.dnn`` net is an inference, and each high-level model's call.

The classes are written in C. Where OpenCV was built against Python's stable ABI, as the wheels
are, they can be changed like any other class; where it was not, as in Debian's and JetPack's
packages, they cannot, and such nets stay unseen: the log says so.
"""

from __future__ import annotations

import logging
from types import ModuleType

from governor.instrument.framework import Framework

RUNS = {
    "Net": ("forward", "forwardAndRetrieve"),
    "Model": ("predict",),
    "ClassificationModel": ("classify",),
    "DetectionModel": ("detect",),
    "KeypointsModel": ("estimate",),
    "SegmentationModel": ("segment",),
    "TextRecognitionModel": ("recognize",),
    "TextDetectionModel": ("detect", "detectTextRectangles"),
}
"""Methods that run a network, by class of ``cv2.dnn``."""
logger = logging.getLogger("governor")


class OpenCV(Framework):
    """Nets and models of ``cv2.dnn``."""

    name = "opencv"
    module = "cv2"

    def open(self, module: ModuleType) -> None:
        """Replace the methods of those classes that this OpenCV has."""
        classes = module.dnn if hasattr(module, "dnn") else None  # it may be built without
        for name, methods in RUNS.items():
            owner = getattr(classes, name, None)
            changed = [self.time_calls(owner, method) for method in methods]
            if name == "Net" and owner is not None and not any(changed):
                logger.warning(
                    "this build of OpenCV keeps its nets from being seen; mark each inference "
                    "with gov.watch, gov.inference or gov.tick"
                )

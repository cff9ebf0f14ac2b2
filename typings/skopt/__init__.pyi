# What this project uses of scikit-optimize, which ships no annotations.
from collections.abc import Sequence

from skopt.space import Integer

class Optimizer:
    def __init__(
        self, dimensions: Sequence[Integer], *, random_state: int, n_initial_points: int
    ) -> None: ...
    def ask(self) -> list[int]: ...
    def tell(self, x: list[int], y: float) -> object: ...

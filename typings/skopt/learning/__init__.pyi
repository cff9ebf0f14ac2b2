import numpy as np
from numpy.typing import NDArray
from skopt.learning.gaussian_process.kernels import Kernel

_Array = NDArray[np.float64]

class GaussianProcessRegressor:
    L_: _Array
    alpha_: _Array
    def __init__(self, kernel: Kernel, *, alpha: _Array, optimizer: None) -> None: ...
    def fit(self, X: _Array, y: _Array) -> GaussianProcessRegressor: ...

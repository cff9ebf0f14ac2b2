import numpy as np
from numpy.typing import NDArray
from skopt.learning.gaussian_process.kernels import Kernel

_Array = NDArray[np.float64]

class GaussianProcessRegressor:
    X_train_: _Array
    K_inv_: _Array
    kernel_: Kernel
    def __init__(self, kernel: Kernel, *, alpha: _Array, optimizer: None) -> None: ...
    def fit(self, X: _Array, y: _Array) -> GaussianProcessRegressor: ...
    def predict(self, X: _Array, return_std: bool) -> tuple[_Array, _Array]: ...

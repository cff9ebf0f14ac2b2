"""Networks to count, to run and to emulate: plain PyTorch, with random weights.

Nothing here needs more than PyTorch, which is imported when a network is built.
"""

from governor.workloads.catalogue import Workload, load_workload, workload_names

__all__ = ["Workload", "load_workload", "workload_names"]

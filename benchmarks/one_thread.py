"""One thread for each process: side by side, two pools of threads would wait for each other."""

from __future__ import annotations

import torch
from executorch.extension.pybindings import _portable_lib as runtime

from mobile_export.quiet import quiet_third_parties


def one_thread() -> None:
    """Leave the other cores to the other processes, in PyTorch and in ExecuTorch's runtime; and be quiet."""
    quiet_third_parties()
    torch.set_num_threads(1)
    runtime._unsafe_reset_threadpool(1)

"""Features that a recipe computes once and reads again and again, kept out of memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


def on_disk(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The same float32 tensors, memory-mapped in a temporary file that goes with the process.

    They are taken one at a time.
    """
    shapes = []
    with tempfile.TemporaryFile() as file:
        for tensor in tensors:
            shapes.append(tensor.shape)
            file.write(tensor.contiguous().numpy().tobytes())
        file.flush()
        sizes = [shape.numel() for shape in shapes]
        if not sum(sizes):
            return [torch.zeros(shape) for shape in shapes]
        # The mapping outlives the file's handle and name.
        whole = torch.from_numpy(np.memmap(file, np.float32, "r+", shape=(sum(sizes),)))
    return [part.view(shape) for part, shape in zip(torch.split(whole, sizes), shapes, strict=True)]

"""Checks of arrays that a caller hands in."""

import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.ArrayLike | Tensor


def expect_shape(name: str, value: Tensor, shape: tuple[int | str, ...]) -> None:
    """Check a shape.

    Args:
        name: Of the argument, for the message.
        value: The argument.
        shape: What is expected; a word stands for a length that may be any.

    Raises:
        ValueError: if it is another; says both.
    """
    fits = value.ndim == len(shape) and all(
        isinstance(wanted, str) or found == wanted
        for found, wanted in zip(value.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        raise ValueError(f"{name} has shape {tuple(value.shape)}, expected ({wanted})")


def checked_tokens(ids: Array, vocabulary: int, name: str) -> Tensor:
    """Token ids int64 [n] on the CPU.

    Raises:
        ValueError: if the shape or dtype is another, or an id is not below ``vocabulary``; names
            the argument.
    """
    tokens = torch.as_tensor(ids).cpu()
    if tokens.ndim != 1 or tokens.dtype != torch.int64:
        raise ValueError(
            f"{name} has shape {tuple(tokens.shape)} and dtype {tokens.dtype}, "
            "expected (n,) and torch.int64"
        )
    if len(tokens):
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= vocabulary:
            raise ValueError(
                f"{name} holds {low if low < 0 else high}, expected ids from 0 to {vocabulary - 1}"
            )
    return tokens

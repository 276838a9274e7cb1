"""What attention has read of a sequence: keys and values, allocated ahead."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy.typing as npt
import torch
from torch import Tensor

from agent.speech.language_model_config import LanguageModelConfig


class CacheStep(NamedTuple):
    """Views of a cache through which all layers write some tokens and read up to them.

    Attributes:
        write: Of each layer, keys and values of the new tokens [2, groups, n, d].
        read: Keys, then values of each layer in turn [1, groups, length + n, d].
    """

    write: tuple[Tensor, ...]
    read: tuple[Tensor, ...]


class KVCache:
    """Keys and values of one sequence, allocated ahead and cut by moving its length.

    Attributes:
        length: Tokens held.
    """

    def __init__(
        self,
        config: LanguageModelConfig,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        capacity: int = 256,
    ):
        self.length = 0
        # Keys and values of a layer lie side by side, so that one copy writes both.
        shape = (
            2 * config.num_layers,
            1,
            config.multi_query_group_num,
            capacity,
            config.kv_channels,
        )
        self._limit = config.seq_length
        self._store = torch.zeros(shape, device=device, dtype=dtype)
        self._arrays: npt.NDArray[Any] | None = None

    @property
    def arrays(self) -> npt.NDArray[Any]:
        """All keys and values, on the CPU: [layers, 2, groups, capacity, d], without a copy.

        Valid until the next :meth:`reserve`.
        """
        if self._arrays is None:
            self._arrays = self._store.view(-1, 2, *self._store.shape[2:]).numpy()
        return self._arrays

    def truncate(self, length: int) -> None:
        """Forget all tokens from position ``length`` on."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot cut a cache of {self.length} tokens to {length}")
        self.length = length

    def reserve(self, count: int) -> None:
        """Make room for ``count`` more tokens; doubles, so that a long answer copies seldom.

        Raises:
            ValueError: The sequence would be longer than the model's positions.
        """
        needed = self.length + count
        if needed > self._limit:
            raise ValueError(
                f"{needed} tokens are more than the model's seq_length of {self._limit}"
            )
        capacity = self._store.shape[3]
        if needed > capacity:
            shape = list(self._store.shape)
            shape[3] = min(max(needed, 2 * capacity), self._limit)
            store = self._store.new_zeros(shape)
            store[:, :, :, : self.length] = self._store[:, :, :, : self.length]
            self._store = store
            self._arrays = None

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write one layer's new keys and values [groups, n, d] behind the tokens held.

        Returns views of all keys and values [groups, length + n, d]. The length moves only with
        :meth:`advance`, after every layer has written.
        """
        end = self.length + keys.shape[1]
        stores = self._store[2 * layer, 0], self._store[2 * layer + 1, 0]
        for store, new in zip(stores, (keys, values), strict=True):
            store[:, self.length : end] = new
        return stores[0][:, :end], stores[1][:, :end]

    def step(self, count: int) -> CacheStep:
        """Make room for ``count`` more tokens and cut out the views of all layers at once.

        Raises:
            ValueError: As :meth:`reserve`.
        """
        self.reserve(count)
        write = self._store.narrow(3, self.length, count).squeeze(1)
        write = write.view(-1, 2, *write.shape[1:])
        read = self._store.narrow(3, 0, self.length + count)
        return CacheStep(write.unbind(), read.unbind())

    def advance(self, count: int) -> None:
        """Count the tokens that every layer has written."""
        self.length += count

"""A key-value cache with room: written in place, and finished rows make way for living ones.

transformers' own cache concatenates all keys at every step. The copies, and the page faults of the
fresh memory they land in, are 61 % of the CPU time of `generate` for the playground's model (2048
rows, torch.profiler). Here a batch writes into memory that was set aside, and hands it on to the
next batch. Sizes: R rows (responses side by side), H heads, T positions, D numbers in a head.
"""

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedConfig
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

GROWTH = 64
"""Positions set aside beyond the prompt. A longer answer gets half as much again each time it is
there, so that a generous token limit costs no memory before it is used."""


class Store:
    """The keys, or the values, of one layer: shape [R, H, T, D], in memory that is used again."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)
        self._held = torch.empty(0, 0, 0, 0)

    @property
    def room(self) -> int:
        """Positions that fit before the store has to grow."""
        return self._held.shape[2]

    def hold(self, prefix_P_H_T_D: Tensor, n: int, room: int) -> None:
        """Repeat each prompt's prefix n times, with room for positions to come."""
        P, H, T, D = prefix_P_H_T_D.shape
        size = P * n * H * room * D
        if size > self._memory.numel():
            self._memory = prefix_P_H_T_D.new_empty(size)
        held = self._memory[:size].view(P, n, H, room, D)
        held[:, :, :, :T] = prefix_P_H_T_D[:, None]
        self._held = held.flatten(0, 1)

    def append(self, new_R_H_1_D: Tensor, at: int) -> Tensor:
        """Write one position; return all positions so far, shape [R, H, at + 1, D]."""
        rows = new_R_H_1_D.shape[0]
        self._held[:rows, :, at] = new_R_H_1_D[:, :, 0]
        return self._held[:rows, :, : at + 1]

    def move(self, movers: Tensor, holes: Tensor, length: int) -> None:
        """Copy rows `movers` over rows `holes`."""
        filled = self._held[:, :, :length]
        filled.index_copy_(0, holes, filled.index_select(0, movers))

    def grow(self, rows: int, room: int) -> None:
        """Move the first `rows` rows to larger memory and give the old memory back."""
        filled = self._held[:rows]
        _, H, T, D = filled.shape
        self._held = filled.new_empty(rows, H, room, D)
        self._held[:, :, :T] = filled
        self._memory = self._held.flatten()


class RoomyLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]  # its __init_subclass__
    """One attention layer of the cache, in the interface that every model of transformers calls."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.is_initialized = True
        self._stores = Store(), Store()
        self.begin(0)

    def begin(self, limit: int) -> None:
        """Forget everything; the next batch has at most `limit` positions."""
        self._limit = limit
        self._length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the first `update` says all shapes."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Take the keys and values of new positions; return those of all positions."""
        if not self._length:
            self.keys, self.values = key_states, value_states
            self._length = key_states.shape[2]
            return key_states, value_states
        keys, values = self._stores
        if self._length == keys.room:
            keys.grow(len(key_states), self._room())
            values.grow(len(key_states), self._room())
        at = self._length
        self._length += 1
        return keys.append(key_states, at), values.append(value_states, at)

    def repeat(self, n: int) -> None:
        """After the prompts were encoded: n rows for each of them."""
        assert self.keys is not None
        assert self.values is not None
        for store, prefix in zip(self._stores, (self.keys, self.values), strict=True):
            store.hold(prefix, n, self._room())
        self.keys = self.values = None

    def move(self, movers: Tensor, holes: Tensor) -> None:
        """Copy rows `movers` over rows `holes`."""
        for store in self._stores:
            store.move(movers, holes, self._length)

    def get_seq_length(self) -> int:
        """Positions so far."""
        return self._length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that the next `update` returns."""
        return self._length + query_length, 0

    def get_max_length(self) -> int:
        """No maximum, as for a `DynamicLayer`."""
        return -1

    def _room(self) -> int:
        return min(self._limit, self._length + max(GROWTH, self._length // 2))


class RoomyCache:
    """The cache of a policy: its roomy layers outlive the batches, everything else is made anew."""

    def __init__(self, config: PreTrainedConfig) -> None:
        self._config = config
        self._roomy: dict[int, RoomyLayer] = {}
        self.current: Cache = DynamicCache(config=config)

    def begin(self, limit: int) -> Cache:
        """An empty cache, as the model's forward takes it, for at most `limit` positions."""
        self.current = DynamicCache(config=self._config)
        for index, layer in enumerate(self.current.layers):
            if _remembers_all(layer, limit):
                self.current.layers[index] = self._roomy.setdefault(index, RoomyLayer())
                self._roomy[index].begin(limit)
        return self.current

    def repeat(self, n: int, index_R: Tensor) -> None:
        """After the prompts were encoded: n rows for each; row r comes from prompt index_R[r]."""
        for layer in self.current.layers:
            if isinstance(layer, RoomyLayer):
                layer.repeat(n)
            else:
                layer.reorder_cache(index_R)  # type: ignore[arg-type]  # it says LongTensor

    def keep(self, movers: Tensor, holes: Tensor, index_R: Tensor) -> None:
        """Keep len(index_R) rows: `movers` take the places `holes`; row r comes from index_R[r]."""
        for layer in self.current.layers:
            if isinstance(layer, RoomyLayer):
                layer.move(movers, holes)
            else:
                layer.reorder_cache(index_R)  # type: ignore[arg-type]  # it says LongTensor


def _remembers_all(layer: object, limit: int) -> bool:
    """Whether a layer attends to all of `limit` positions, so that a `RoomyLayer` can replace it.

    A sliding window that the batch outgrows, a linear-attention state and whatever else a model
    brings stay what transformers made them.
    """
    if type(layer) is DynamicSlidingWindowLayer:
        return limit < layer.sliding_window
    return type(layer) is DynamicLayer

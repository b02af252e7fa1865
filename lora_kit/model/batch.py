"""What a model needs to know of a micro-batch; ``data.collate`` makes one."""

from typing import Protocol

from torch import Tensor


class TokenBatch(Protocol):
    """Examples as tensors; data.collate makes them."""

    @property
    def input_ids(self) -> Tensor:
        """Int64 ``(B, T)``; B = 1 when the examples are laid end to end."""

    @property
    def position_ids(self) -> Tensor:
        """Int64 ``(B, T)``, from 0 in each example."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each of the E examples, in order."""

    @property
    def segments(self) -> tuple[int, ...]:
        """Tokens of each segment of the long row; empty when padded."""

    @property
    def parents(self) -> tuple[int, ...]:
        """The earlier segment that each segment continues, -1 for none."""

    @property
    def attention_mask(self) -> Tensor | None:
        """Int64 ``(B, T)``, 1 = real; None when the examples are laid end to end."""

    @property
    def predict_at(self) -> Tensor:
        """Int64 ``(N,)``, index into the B x T positions of the state that predicts a target."""

    @property
    def targets(self) -> Tensor:
        """Int64 ``(N,)``."""

    @property
    def owner(self) -> Tensor:
        """Int64 ``(N,)``, which of the E examples a target belongs to."""

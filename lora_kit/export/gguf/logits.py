"""What the numbers of a GGUF file mean for the model: logits with the file's weights against its source's.

The file is unpacked into transformers' own model, row orders undone. So this shows names, orders and
rounding of the weights; llama.cpp's arithmetic is its own. Both models are read a layer at a time, and
their logits are made and compared a piece of the vocabulary at a time, so that no model need fit into memory.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lora_kit.errors import ModelError
from lora_kit.export.gguf.file_weights import file_reader
from lora_kit.export.gguf.plan import EMBEDDING, OUTPUT, ExportPlan
from lora_kit.model.base import BaseFiles, find_base
from lora_kit.model.gguf_file import GgufHeader
from lora_kit.model.layered import head_source, layered_model
from lora_kit.model.memory import return_freed_memory
from lora_kit.model.stored_weights import Read, reader_of
from lora_kit.recipe.schema import BaseSpec

TIE = 0.02  # logits that are closer than this may change places through rounding to float16
_PIECE_NUMBERS = 1 << 19  # of the output matrix, and of the logits made with it


def compare_logits(
    folder: Path, plan: ExportPlan, path: Path, header: GgufHeader, rows: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Compare logits of the source's weights with those of the file's.

    Args:
        folder: The source.
        plan: Of the file.
        path: The file.
        header: Of the file.
        rows: Token ids.

    Returns:
        ``tokens``, ``max_difference``, ``mean_difference``, ``max_logit``, ``kl`` (nats a token, source to
        file), ``greedy_agreement``.

    Raises:
        ModelError: An f32 file is not exact, or an f16 file's most likely token differs, ties apart.
    """
    files = find_base(BaseSpec(model=str(folder.resolve())))
    wanted = _Side(files, reader_of(files, torch.float32), rows)
    found = _Side(files, file_reader(path, header, plan), rows)
    difference = _Difference(len(wanted.states))
    step = max(1, _PIECE_NUMBERS // max(wanted.states.shape))
    for first in range(0, header.kinds[OUTPUT if OUTPUT in header.kinds else EMBEDDING][1][0], step):
        piece = slice(first, first + step)
        difference.add(wanted.logits(piece), found.logits(piece))
    figures = difference.figures()
    _judge(figures, plan.quant, difference.gap, path)
    return figures


class _Side:
    """A model's last hidden states ``(tokens, H)``, and its logits a piece of the vocabulary at a time."""

    @torch.no_grad()
    def __init__(self, files: BaseFiles, read: Read, rows: Sequence[Sequence[int]]) -> None:
        model = layered_model(files, dtype=torch.float32, read=read)
        assert isinstance(model, PreTrainedModel)
        longest = max(map(len, rows))  # padded behind, where causal attention doesn't look
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
        states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        self.states = torch.cat([states[n, : len(row)] for n, row in enumerate(rows)])
        self._head = head_source(model, read)
        return_freed_memory()

    @torch.no_grad()
    def logits(self, piece: slice) -> Tensor:
        return self.states @ self._head(rows=piece).T


class _Softmax:
    """The most likely token of each position, and its softmax's denominator, over pieces; float64."""

    def __init__(self, tokens: int) -> None:
        self.largest = torch.full((tokens,), -torch.inf, dtype=torch.float64)
        self.best = torch.zeros(tokens, dtype=torch.int64)
        self._total = torch.zeros(tokens, dtype=torch.float64)

    def add(self, logits: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
        """Take in the logits of tokens ``first`` and on.

        Returns:
            Their shares ``exp(logit - largest)``, what older sums shrink by, and where the best token is new.
        """
        highest, place = logits.max(-1)
        new = highest > self.largest
        self.best = torch.where(new, place + first, self.best)
        largest = torch.maximum(self.largest, highest)
        shrunk = (self.largest - largest).exp()
        shares = (logits - largest[:, None]).exp_()
        self.largest, self._total = largest, self._total * shrunk + shares.sum(-1)
        return shares, shrunk, new

    @property
    def log_total(self) -> Tensor:
        """The logarithm of the sum of exp(logit)."""
        return self.largest + self._total.log()

    def mean(self, weighted: Tensor) -> Tensor:
        """What a sum that was weighted by shares is as an expectation."""
        return weighted / self._total


class _Difference:
    """What two models' logits differ by, summed over pieces of the vocabulary."""

    def __init__(self, tokens: int) -> None:
        self._wanted, self._found = _Softmax(tokens), _Softmax(tokens)
        self._weighted = torch.zeros(tokens, dtype=torch.float64)
        self._wanted_at_found = torch.zeros(tokens, dtype=torch.float64)
        self._largest = self._total = self._largest_logit = 0.0
        self._seen = 0

    def add(self, wanted: Tensor, found: Tensor) -> None:
        """Take in the next piece of both sides, ``(tokens, piece)``."""
        wanted, found = wanted.double(), found.double()
        difference = wanted - found
        shares, shrunk, _ = self._wanted.add(wanted, self._seen)
        self._weighted = self._weighted * shrunk + shares.mul_(difference).sum(-1)
        new = self._found.add(found, self._seen)[-1]
        there = (self._found.best - self._seen).clamp(min=0)[:, None]
        self._wanted_at_found = torch.where(new, wanted.gather(-1, there)[:, 0], self._wanted_at_found)
        self._largest_logit = max(self._largest_logit, float(wanted.abs().max()))
        self._largest = max(self._largest, float(difference.abs_().max()))
        self._total += float(difference.sum())
        self._seen += wanted.shape[1]

    @property
    def gap(self) -> float:
        """By how much the source prefers its own token to the file's, where most."""
        return float((self._wanted.largest - self._wanted_at_found).max())

    def figures(self) -> dict[str, Any]:
        """As in certificate.json."""
        kl = self._wanted.mean(self._weighted) - self._wanted.log_total + self._found.log_total
        tokens = len(kl)
        return {
            "tokens": tokens,
            "max_difference": self._largest,
            "mean_difference": self._total / (tokens * self._seen),
            "max_logit": self._largest_logit,
            "kl": float(kl.mean()),
            "greedy_agreement": float((self._wanted.best == self._found.best).double().mean()),
        }


def _judge(figures: dict[str, Any], quant: str, gap: float, path: Path) -> None:
    if quant == "f32" and figures["max_difference"] != 0:
        raise ModelError(
            f"the file's logits differ by {figures['max_difference']:.3g}, though it is float32",
            where=str(path),
        )
    if quant in {"f32", "f16"} and gap > TIE:
        raise ModelError(
            f"the file's most likely token is another one, by {gap:.3g} in logit", where=str(path)
        )

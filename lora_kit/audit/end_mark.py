"""Does every answer end with a mark that generation stops at, and is that mark learned?

The most frequent complaint about fine-tuned models is that they never stop: the mark was masked, or cut, or
never written by the template (unsloth issue 416, LLaMA-Factory issue 7943, Qwen3 issue 1064).
"""

from collections.abc import Sequence

import numpy as np

from lora_kit.audit.findings import Finding
from lora_kit.data.encode import Encoder
from lora_kit.data.row_file import spread
from lora_kit.data.types import Example

NAME = "end marks"
MOST_ROWS = 1000  # of a large data set, evenly spread
LEAST_SHARE = 0.99
SHOWN = 3


def check_end_marks(rows: Sequence[Example], encoder: Encoder) -> Finding:
    """Look at the last trained token of every answer.

    Args:
        rows: Training rows, at least one.
        encoder: Whose stop ids end generation.
    """
    looked = spread(rows, MOST_ROWS)
    answers, without, marks = 0, list[str](), set[int]()
    for row in looked:
        last = [row.input_ids[end - 1] for _, end in answer_spans(row)]
        answers += len(last)
        marks |= encoder.stop_ids & set(last)
        without += [row.origin] * sum(token not in encoder.stop_ids for token in last)
    share = 1 - len(without) / max(answers, 1)
    names = ", ".join(repr(encoder.tokenizer.decode([mark])) for mark in sorted(marks))
    found = f"{answers - len(without):,} of {answers:,} answers end with a learned end mark"
    if not without:
        return Finding(NAME, f"{found} ({names})")
    first = ", ".join(list(dict.fromkeys(without))[:SHOWN])
    return Finding(
        NAME,
        f"only {found}; without one: {first}",
        "failed" if share < LEAST_SHARE else "warning",
        "data.template",
        "a model that never reads an end mark never stops: choose a template that writes the tokenizer's "
        "end-of-turn token or EOS after each answer",
    )


def answer_spans(row: Example) -> list[tuple[int, int]]:
    """Return (start, end) of each run of trained tokens."""
    flags = np.diff(np.array([False, *row.trained, False]).astype(np.int8))
    return list(zip(np.flatnonzero(flags == 1).tolist(), np.flatnonzero(flags == -1).tolist(), strict=True))

"""The turns of the data bench: the tokenizer alone, and ``prepare_data`` with an empty and a full cache."""

import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from benches.figures import Figures
from benches.processes import answer

BLOCK = 1000


def find(job: Figures) -> Figures:
    """Find (or convert) the base, so that no side's turn pays for it."""
    from lora_kit.model.base import find_base
    from lora_kit.recipe.schema import BaseSpec

    folder = Path(job["folder"])
    (folder / "base.txt").write_text(str(find_base(BaseSpec(model=job["base"])).folder), "utf-8")
    return {}


def open_encoder(job: Figures) -> Any:  # noqa: ANN401 - imported late, to be counted
    """Open the base's tokenizer with the template."""
    from lora_kit.data.open_encoder import open_encoder

    return open_encoder(Path((Path(job["folder"]) / "base.txt").read_text("utf-8")), job["template"], None)


def render(job: Figures) -> Figures:
    """Write the text of each row, for the tokenizer's side."""
    from lora_kit.data.formats.alpaca import convert
    from lora_kit.data.sources import read_rows

    folder = Path(job["folder"])
    template = open_encoder(job).template
    rows = read_rows(folder / "rows.jsonl")
    with (folder / "texts.jsonl").open("w", encoding="utf-8") as stream:
        while block := list(islice(rows, BLOCK)):
            talks = [talk.messages for row in block for talk in convert(row)]
            for segments in template.render_many(talks, generation_prompt=False):
                stream.write(json.dumps("".join(segment.text for segment in segments)) + "\n")
    return {}


def tokenizer(job: Figures) -> Figures:
    """Encode the finished texts with the tokenizer's own batch call."""
    folder = Path(job["folder"])
    backend = open_encoder(job).tokenizer.hf.backend_tokenizer
    seconds, cpu_seconds, tokens = 0.0, 0.0, 0
    for block in _blocks(folder / "texts.jsonl"):
        began = time.perf_counter()
        cpu_began = time.process_time()
        ids = [encoding.ids for encoding in backend.encode_batch_fast(block, add_special_tokens=False)]
        seconds += time.perf_counter() - began
        cpu_seconds += time.process_time() - cpu_began
        tokens += sum(map(len, ids))
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "tokens": tokens}


def _blocks(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8") as stream:
        while lines := list(islice(stream, BLOCK)):
            yield [json.loads(line) for line in lines]


def lora_kit(job: Figures) -> Figures:
    """Prepare the rows with an empty cache."""
    folder = Path(job["folder"])
    for old in (folder / "encoded").glob("*/*"):
        old.unlink()
    return again(job)


def again(job: Figures) -> Figures:
    """Prepare the rows with the cache as the turn before left it, then read some of them back."""
    from lora_kit.data.prepare import prepare_data
    from lora_kit.recipe.schema import DataSpec

    folder = Path(job["folder"])
    encoder = open_encoder(job)
    spec = DataSpec(train=str(folder / "rows.jsonl"), format="alpaca", max_tokens=8192)
    began, cpu_began = time.perf_counter(), time.process_time()
    data = prepare_data(spec, encoder, cache=folder / "encoded")
    figures = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu_began}
    assert all(example.trained_tokens for example in data.train[:: max(len(data.train) // 1000, 1)])
    return figures | {"tokens": data.report.to_json()["tokens"]}


if __name__ == "__main__":
    answer({side.__name__: side for side in (find, render, tokenizer, lora_kit, again)})

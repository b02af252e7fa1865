"""The turns of the generate bench: each side's answers, and what float64 says where they differ."""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benches.figures import Figures, product_rate
from benches.processes import answer

SIDES = ("transformers", "lora_kit")


def find(job: Figures) -> Figures:
    """Find (or convert) the base, and encode the prompts."""
    from lora_kit.data.open_encoder import open_encoder
    from lora_kit.data.types import Message
    from lora_kit.model.base import find_base
    from lora_kit.recipe.schema import BaseSpec

    files = find_base(BaseSpec(model=job["base"]))
    encoder = open_encoder(files.folder, "model", None)
    rows = json.loads(Path(job["rows"]).read_text("utf-8"))[: job["prompts"]]
    prompts = [[Message("user", row["instruction"], row.get("input", ""))] for row in rows]
    found = {"prompts": encoder.encode_prompts(prompts), "stops": sorted(encoder.stop_ids)}
    (Path(job["folder"]) / "prompts.json").write_text(json.dumps(found), "utf-8")
    return {}


def transformers(job: Figures, model: Any, prompts: list[list[int]], stops: list[int]) -> list[list[int]]:  # noqa: ANN401
    """Answer with generate(): batches of like length, padded on the left."""
    import torch
    from transformers import GenerationConfig

    base = model.get_base_model() if job["rank"] else model
    base.generation_config = GenerationConfig()  # the model's own sampling would leak in
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=job["new_tokens"],
        eos_token_id=stops,
        pad_token_id=stops[0],
        use_cache=True,
    )
    order = sorted(range(len(prompts)), key=lambda at: -len(prompts[at]))
    answers: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), job["batch_size"]):
        chosen = order[start : start + job["batch_size"]]
        width = max(len(prompts[at]) for at in chosen)
        ids = torch.tensor([[0] * (width - len(prompts[at])) + prompts[at] for at in chosen])
        mask = torch.tensor([[0] * (width - len(prompts[at])) + [1] * len(prompts[at]) for at in chosen])
        with torch.inference_mode():
            output = base.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        for at, row in zip(chosen, output[:, width:].tolist(), strict=True):
            end = next((n for n, token in enumerate(row) if token in stops), len(row) - 1)
            answers[at] = row[: end + 1]
    return answers


def lora_kit(job: Figures, model: Any, prompts: list[list[int]], stops: list[int]) -> list[list[int]]:  # noqa: ANN401
    """Answer with slots that are refilled."""
    from lora_kit.model.generate import start_decoding

    limits = [job["new_tokens"]] * len(prompts)
    decoding = start_decoding(model, prompts, limits, frozenset(stops), places=job["batch_size"])
    answers: dict[int, list[int]] = {}
    while decoding.busy:
        answers.update(decoding.advance())
    return [answers[at] for at in range(len(prompts))]


def timed(job: Figures, answer_all: Callable[..., list[list[int]]]) -> Figures:
    """Load, warm up with two tokens, answer."""
    prompts, stops = _prompts(job)
    model = _open(job, "float32")
    answer_all(job | {"new_tokens": 2}, model, prompts[:4], stops)
    began = time.perf_counter()
    answers = answer_all(job, model, prompts, stops)
    seconds = time.perf_counter() - began
    (Path(job["folder"]) / f"{job['side']}.json").write_text(json.dumps(answers), "utf-8")
    weights = {name: w.numel() for name, w in model.named_parameters() if w.ndim == 2 and "lora" not in name}
    head = model.get_output_embeddings().weight.numel()
    embeddings = model.get_input_embeddings().weight.numel()
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    layers = sum(weights.values()) - embeddings - (0 if tied else head)
    written = sum(map(len, answers))
    flops = 2 * layers * (sum(map(len, prompts)) + written) + 2 * head * written
    rate = max(product_rate(1) for _ in range(10))
    return {"seconds": seconds, "tokens": written, "gemm": rate, "share": flops / rate / seconds}


def gaps(job: Figures) -> Figures:
    """For each prompt whose tokens differ: where, and by how much the candidates do in float64."""
    import torch

    prompts, _ = _prompts(job)
    model = _open(job, "float64")
    both = [json.loads((Path(job["folder"]) / f"{side}.json").read_text("utf-8")) for side in SIDES]
    found = []
    for number, (prompt, theirs, ours) in enumerate(zip(prompts, *both, strict=True)):
        if theirs == ours:
            continue
        at = next(n for n, pair in enumerate(zip(theirs, ours, strict=False)) if pair[0] != pair[1])
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([prompt + ours[:at]]), use_cache=False).logits[0, -1]
        gap = float(scores[ours[at]] - scores[theirs[at]])
        found.append({"prompt": number, "token": at, "gap": abs(gap), "right": SIDES[gap > 0]})
    return {"gaps": found}


def _prompts(job: Figures) -> tuple[list[list[int]], list[int]]:
    found = json.loads((Path(job["folder"]) / "prompts.json").read_text("utf-8"))
    return found["prompts"], found["stops"]


def _open(job: Figures, dtype: str) -> Any:  # noqa: ANN401 - imported late
    """The base as each side loads it, and maybe an adapter on it."""
    import torch
    from transformers import AutoModelForCausalLM

    from lora_kit.model.adapter_inject import add_adapter
    from lora_kit.model.base import find_base
    from lora_kit.model.load import load_model
    from lora_kit.recipe.schema import BaseSpec, LoraSpec, QuantizationSpec

    files = find_base(BaseSpec(model=job["base"]))
    if job["side"] == "lora_kit":
        model = load_model(files, dtype=dtype, quantization=QuantizationSpec(), device="cpu")
    else:
        model = AutoModelForCausalLM.from_pretrained(files.folder, dtype=getattr(torch, dtype)).eval()
    if job["rank"]:
        model = add_adapter(model, LoraSpec(rank=job["rank"]), files.family, seed=0)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(
                    parameter.data, 0.0, 0.02, generator=torch.Generator().manual_seed(len(name))
                )
    return model


if __name__ == "__main__":
    timed_sides = {side.__name__: partial(timed, answer_all=side) for side in (transformers, lora_kit)}
    answer({"find": find, "gaps": gaps, **timed_sides})

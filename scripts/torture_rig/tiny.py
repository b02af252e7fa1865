"""A model of two layers, 24 rows and the recipes that are tortured: small, with all parts of a real run."""

import json
from pathlib import Path
from typing import Any

SPECIAL_TOKENS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
ROWS = [
    ("Name the colour of %s.", "It is the colour number %d, as everybody knows."),
    ("How many legs has %s?", "It has %d legs."),
    ("Say something about %s", "There is not much to say about it, but %d times is enough."),
]
THINGS = ("a fox", "the dog", "a brown cat", "the sun", "a lazy question", "the answer", "a word", "the text")

# Two epochs of five steps, several micro-batches of rows laid end to end in each, a checkpoint every other
# step, and the best kept beside the newest two: rotation deletes, and the adapter may be an older one.
TRAINING: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 4,
    "micro_batch_tokens": 200,
    "learning_rate": 1e-2,
    "warmup_steps": 2,
    "save_every": 2,
    "validate_every": 4,
}
RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "dropout": {"lora": {"dropout": 0.1}},
    "prefixes": {"lora": {"dropout": 0.0}},  # rows share what they have in common only without dropout
    "other-seed": {"train": {"seed": 1}},
    "short": {"train": {"epochs": None, "steps": 3, "save_every": 1, "validate_every": 2}},
    "auto": {"train": {"epochs": None, "steps": 4, "save_every": 1, "micro_batch_tokens": "auto"}},
    "whole": {"train": {"epochs": None, "steps": 4, "save_every": 1, "micro_batch_tokens": 4096}},
}


def build(home: Path) -> dict[str, Path]:
    """Write base, rows and recipes into a folder; return the recipes by name."""
    _save_base(home / "base")
    rows = [
        {"instruction": ask % thing, "context": "", "response": say % number, "category": "open_qa"}
        for number, thing in enumerate(THINGS)
        for ask, say in ROWS
    ]
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    paths = {name: home / f"{name}.yaml" for name in RECIPES}
    for name, path in paths.items():
        path.write_text(json.dumps(_recipe(name), indent=1), encoding="utf-8")  # JSON is YAML
    return paths


def _recipe(name: str) -> dict[str, Any]:
    recipe: dict[str, Any] = {
        "name": name,
        "base": {"model": "./base"},
        "data": {"train": "rows.jsonl", "format": "dolly", "template": "chatml", "validation_fraction": 0.2},
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.1},
        "train": TRAINING,
        "engine": {"audit": "off"},  # the end audit is a process of its own, which imports everything anew
        "evaluate": {"suites": []},
    }
    for section, changes in RECIPES[name].items():
        merged = {**recipe[section], **changes}
        recipe[section] = {key: value for key, value in merged.items() if value is not None}
    return recipe


def _save_base(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=SPECIAL_TOKENS, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator([text for pair in ROWS for text in pair], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", model_max_length=256
    )
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        vocab_size=300,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(float("norm" in name), 0.15, generator=generator)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors leaves 0600, and one trial is somebody else

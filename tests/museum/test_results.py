"""Museum, third room: defects of merged models and of judgments."""

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_kit.cli.app import run as command_line
from lora_kit.errors import IncompleteError
from lora_kit.harness.client import ChatClient
from lora_kit.harness.endpoint import Endpoint
from lora_kit.harness.judging.backends.endpoint import EndpointJudge
from lora_kit.harness.judging.run import JudgeJob, judge, require_judged
from lora_kit.harness.judging.sides import read_pairing
from lora_kit.harness.retry import Timer

pytestmark = pytest.mark.fault("P16")

TinyRecipe = Callable[..., Path]


def test_a_four_bit_run_is_merged_into_what_was_trained(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    """https://github.com/huggingface/transformers/issues/31293, https://github.com/huggingface/peft/issues/2321

    Merging rounded base plus update to four bits again, which ate much of what had been learned.
    """
    from lora_kit.assemble import find_adapter, open_parts

    recipe = tiny_recipe(quantization={"method": "nf4"}, train={"learning_rate": 0.02})
    assert command_line(["train", str(recipe), "--run-dir", str(tmp_path / "run")]) == 0
    assert command_line(["merge", str(tmp_path / "run")]) == 0
    from transformers import AutoModelForCausalLM

    trained = open_parts(find_adapter(tmp_path / "run/adapter", name="run")).model
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "run/merged", use_safetensors=True)
    ids = torch.arange(10, 40)[None]
    with torch.no_grad():
        expected, found = trained(input_ids=ids).logits, merged(input_ids=ids).logits
        with trained.disable_adapter():
            effect = (trained(input_ids=ids).logits - expected).abs().max()
    assert (found - expected).abs().max() < 0.01 * effect


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_an_adapter_on_tied_embeddings_is_refused(
    tiny_recipe: TinyRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    """https://github.com/huggingface/peft/issues/2018

    An update of the output head was merged into the input embeddings too, which are the same numbers.
    """
    recipe = tiny_recipe(lora={"targets": ["q_proj", target]})
    assert command_line(["train", str(recipe), "--run-dir", str(tmp_path / "run")]) == 4
    assert "tied" in capsys.readouterr().err


def test_a_judge_that_failed_gives_no_score(chat_stub: Any, fake_time: Any, tmp_path: Path) -> None:
    """https://github.com/huggingface/lighteval/issues/1296, https://github.com/lm-sys/FastChat/pull/2074

    After failed calls the text of the error was read as the judge's reply, and counted as a score.
    """
    for name in ("ours", "theirs"):
        rows = [{"id": f"q{n}", "prompt": f"Question {n}?", "answer": name} for n in range(4)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chat_stub.script = lambda handler, body: (
        handler.send(500, "ERROR: 9 9")
        if "Question 1?" in body["messages"][-1]["content"]
        else handler.complete("8 2")
    )
    pairing = read_pairing(str(tmp_path / "ours.jsonl"), str(tmp_path / "theirs.jsonl"), None)
    timer = Timer(clock=lambda: fake_time.now, sleep=fake_time.sleep, chance=lambda: 1.0)
    with ChatClient(Endpoint(chat_stub.url, ""), None, timer=timer, connections=1) as client:
        job = JudgeJob(kind="pair_score")
        section = judge(pairing, EndpointJudge(client, "judge", parallel=1), job, tmp_path / "out")
    assert (section["judged"], section["planned"]) == (6, 8)
    assert section["relative"]["estimate"]["n"] == 3
    with pytest.raises(IncompleteError, match="6 of 8 judged"):
        require_judged(section, 1.0)


def test_every_exhibit_has_its_link_and_its_story() -> None:
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if (
                not isinstance(node, ast.FunctionDef)
                or not node.name.startswith("test_")
                or "exhibit" in node.name
            ):
                continue
            lines = (ast.get_docstring(node) or "").splitlines()
            links = re.split(r", ?\n?", lines[0]) if lines else []
            assert links, node.name
            assert all(
                re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/\d+", link) for link in links
            )
            assert len(" ".join(lines[1:]).strip()) > 60, node.name

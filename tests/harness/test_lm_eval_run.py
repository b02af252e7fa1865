"""lm-eval for real, on a task of our own and tiny models: our numbers are those of its own model."""

import json
import random
from types import SimpleNamespace

import pytest
import torch

from lora_kit.assemble import Opened
from lora_kit.data.open_encoder import open_encoder
from lora_kit.errors import DataError, MachineError
from lora_kit.harness import lm_eval_run
from lora_kit.harness.lm_eval_run import rows_of, run_lm_eval
from lora_kit.model.adapter_inject import add_adapter
from lora_kit.model.base import find_base
from lora_kit.model.load import load_model
from lora_kit.recipe.schema import BaseSpec, LoraSpec, QuantizationSpec

TASK = """
task: lk_choice
dataset_path: json
dataset_kwargs:
  data_files: {{test: {rows}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: ["yes", "no", "the lazy dog"]
doc_to_target: "{{{{label}}}}"
target_delimiter: " "
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
PAIRS = [
    ("the quick brown fox", " jumps over the lazy dog"),
    ("the quick brown fox ", "jumps"),
    ("", "the dog"),
    ("what is the answer to this question? " * 3, " yes"),
    ("a", " b c d e"),
]
TEXTS = ["the quick brown fox jumps over the lazy dog", "a " * 300, "x"]


@pytest.fixture(autouse=True)
def _lm_eval(monkeypatch, tmp_path):
    pytest.importorskip("lm_eval", reason="extra lm-eval is not installed")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    state = random.getstate(), torch.get_rng_state()
    yield
    random.setstate(state[0])
    torch.set_rng_state(state[1])


def opened(folder, *, lora: bool = False) -> Opened:
    files = find_base(BaseSpec(model=str(folder)))
    model = load_model(files, dtype="float32", quantization=QuantizationSpec(), device="cpu")
    if lora:
        model = add_adapter(model, LoraSpec(rank=4), files.family, seed=0)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0.0, 0.3, generator=generator)
    adapter = SimpleNamespace(folder=folder) if lora else None
    return Opened("m", model, open_encoder(files.folder, "model", None), files, adapter)


def ours(one: Opened, *, adapter: bool = False):
    from lora_kit.harness.lm_eval_model import LmEvalModel

    return LmEvalModel(one.model, one.encoder, adapter=adapter)


def theirs(one: Opened):
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=one.model, tokenizer=one.encoder.tokenizer.hf, backend="causal", batch_size=1)


def requests(*arguments):
    return [SimpleNamespace(args=one) for one in arguments]


def their_requests(kind, *arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, one, at) for at, one in enumerate(arguments)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["llama", "gpt_neox", "bloom"])
def test_numbers_are_those_of_lm_evals_own_model(tiny_folder, family):
    one = opened(tiny_folder(family))
    reference = theirs(one)
    expected = reference.loglikelihood(their_requests("loglikelihood", *PAIRS), disable_tqdm=True)
    found = ours(one).loglikelihood(requests(*PAIRS), disable_tqdm=True)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert [nats for nats, _ in found] == pytest.approx([nats for nats, _ in expected], rel=1e-5, abs=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_rolling_likelihood_is_that_of_lm_evals_own_model(tiny_llama):
    one = opened(tiny_llama)
    mine, reference = ours(one), theirs(one)
    assert max(len(mine.tok_encode(text)) for text in TEXTS) > mine.max_length  # several windows
    texts = [(text,) for text in TEXTS]
    if one.encoder.tokenizer.adds_bos:
        reference.add_bos_token = False  # else it predicts BOS from BOS
    expected = reference.loglikelihood_rolling(
        their_requests("loglikelihood_rolling", *texts), disable_tqdm=True
    )
    assert mine.loglikelihood_rolling(requests(*texts)) == pytest.approx(expected, rel=1e-5)


def test_a_likelihood_is_the_sum_over_the_continuation(tiny_llama):
    one = opened(tiny_llama)
    model = ours(one)
    context, whole = model.tok_encode("the quick"), model.tok_encode("the quick brown fox")
    with torch.no_grad():
        logits = one.model(input_ids=torch.tensor([whole])).logits[0].double().log_softmax(-1)
    wanted = sum(float(logits[at - 1, whole[at]]) for at in range(len(context), len(whole)))
    [(nats, _)] = model.loglikelihood(requests(("the quick", " brown fox")), disable_tqdm=True)
    assert nats == pytest.approx(wanted, rel=1e-5)


def test_control_tokens_in_a_text_stay_text(tiny_llama):
    one = opened(tiny_llama)
    tokenizer = one.encoder.tokenizer
    text = f"say {next(iter(tokenizer.control))} now"
    assert not tokenizer.control_ids & set(ours(one).tok_encode(text, add_special_tokens=False))


def test_long_contexts_are_cut_on_the_left_and_counted(tiny_llama):
    model = ours(opened(tiny_llama))
    long = "the dog " * model.max_length
    [(cut, _)] = model.loglikelihood(requests((long, " fox")), disable_tqdm=True)
    assert model.truncated == 1
    [(longer, _)] = model.loglikelihood(requests(("a cat " + long, " fox")), disable_tqdm=True)
    assert longer == pytest.approx(cut)
    with pytest.raises(DataError, match="continuation has"):
        model.loglikelihood(requests(("a", long)), disable_tqdm=True)


def test_answers_are_greedy_and_end_before_a_stop_string(tiny_llama):
    model = ours(opened(tiny_llama))
    [free] = model.generate_until(requests(("the dog", {"until": [], "max_gen_toks": 8})))
    assert free
    stop = free[2:4]
    [cut] = model.generate_until(requests(("the dog", {"until": [stop], "max_gen_toks": 8})))
    assert cut == free[: free.index(stop)]
    assert model.generate_until([]) == []
    with pytest.raises(DataError, match="wants samples"):
        model.generate_until(requests(("a", {"do_sample": True, "temperature": 0.7})))
    with pytest.raises(DataError, match="new tokens"):
        model.generate_until(requests(("a", {"max_gen_toks": model.max_length})))


def test_base_and_adapter_are_two_sides_of_one_model(tiny_llama):
    tuned, plain = opened(tiny_llama, lora=True), opened(tiny_llama)
    asked = requests(*PAIRS)
    base = ours(tuned, adapter=False).loglikelihood(asked, disable_tqdm=True)
    assert base == ours(plain).loglikelihood(asked, disable_tqdm=True)
    assert base != ours(tuned, adapter=True).loglikelihood(asked, disable_tqdm=True)


@pytest.fixture
def tasks(tmp_path):
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = tmp_path / "rows.jsonl"
    questions = ["is it a dog?", "the fox?", "what is the answer?", "brown?"]
    rows.write_text("".join(json.dumps({"question": q, "label": 2}) + "\n" for q in questions))
    (folder / "lk_choice.yaml").write_text(TASK.format(rows=rows))
    return folder


@pytest.mark.filterwarnings("ignore")
def test_a_local_task_gives_rows_for_both_sides(tiny_llama, tasks):
    seen = []
    one = opened(tiny_llama, lora=True)
    section = run_lm_eval(one, ["lk_choice"], folder=tasks, on_progress=lambda *done: seen.append(done))
    assert section["library"].startswith("lm-eval 0.4")
    assert section["truncated"] == {"base": 0, "tuned": 0}
    rows = section["tasks"]
    assert [(row["task"], row["model"], row["metric"], row["n"]) for row in rows] == [
        ("lk_choice", "base", "acc", 4),
        ("lk_choice", "tuned", "acc", 4),
    ]
    assert all(0.0 <= row["value"] <= 1.0 and row["stderr"] is not None for row in rows)
    assert seen[-1] == (12, 12)
    json.dumps(section, allow_nan=False)


def test_no_such_task_is_one_line(tiny_llama, tasks, monkeypatch):
    from lm_eval.tasks import TaskManager

    def build(*, include_path, include_defaults=True):
        return TaskManager(include_path=include_path, include_defaults=False)

    monkeypatch.setattr("lm_eval.tasks.TaskManager", build)
    with pytest.raises(DataError, match="no task 'lk_chioce'") as caught:
        run_lm_eval(opened(tiny_llama), ["lk_chioce"], folder=tasks)
    assert len(caught.value.problems) == 1
    with pytest.raises(DataError, match="no such folder"):
        run_lm_eval(opened(tiny_llama), ["lk_choice"], folder=tasks / "nowhere")


def test_without_the_library_the_cure_is_said(tiny_llama, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    with pytest.raises(MachineError, match=r"pip install 'lora-kit\[lm-eval\]'"):
        run_lm_eval(opened(tiny_llama), ["lk_choice"])


def test_rows_name_filters_and_leave_out_what_is_no_number():
    found = {
        "results": {
            "t": {"alias": "t", "sample_len": 3, "em,strict": 0.5, "em_stderr,strict": "N/A"},
            "group": {"acc,none": float("nan"), "acc_stderr,none": 0.1},
        },
        "n-samples": {"t": {"original": 9, "effective": 3}},
    }
    assert rows_of(found, "base") == [
        {"task": "t", "model": "base", "metric": "em (strict)", "value": 0.5, "stderr": None, "n": 3},
        {"task": "group", "model": "base", "metric": "acc", "value": None, "stderr": 0.1, "n": None},
    ]
    assert lm_eval_run.EXTRA == "lm-eval"

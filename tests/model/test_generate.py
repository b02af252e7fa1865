"""Decoding in slots gives the tokens of transformers' generate(), prompt by prompt, whatever runs beside."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from lora_kit.errors import ModelError
from lora_kit.model import decode, generate
from lora_kit.model.adapter_inject import add_adapter
from lora_kit.model.base import BaseFiles
from lora_kit.model.choose import Choice
from lora_kit.model.generate import start_decoding
from lora_kit.recipe.schema import LoraSpec

FAMILIES = ["llama", "gpt_neox", "bloom"]
UNTIED = {"tie_word_embeddings": False}  # with a tied head a random model repeats one token for ever


def ragged(count: int = 9, *, begin: tuple[int, ...] = (), longest: int = 40) -> list[list[int]]:
    draw = random.Random(3)
    return [[*begin, *(draw.randrange(300) for _ in range(draw.randint(1, longest)))] for _ in range(count)]


def answers(
    model: Any, prompts: list[list[int]], limits: int | list[int] = 10, **options: Any
) -> list[list[int]]:
    options = {"stop_ids": frozenset(), "places": 4} | options
    each = [limits] * len(prompts) if isinstance(limits, int) else limits
    decoding = start_decoding(model, prompts, each, options.pop("stop_ids"), **options)
    found: dict[int, list[int]] = {}
    while decoding.busy:
        finished = decoding.advance()
        assert finished
        assert not found.keys() & {index for index, _ in finished}
        found.update(finished)
    assert decoding.advance() == []
    return [found[index] for index in range(len(prompts))]


def generated(model: Any, prompt: list[int], limit: int, stop_ids: tuple[int, ...] = ()) -> list[int]:
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=limit,
        eos_token_id=list(stop_ids) or None,
        pad_token_id=0,
        use_cache=True,
    )
    ids = torch.tensor([prompt])
    output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return output[0, len(prompt) :].tolist()


@pytest.fixture(params=FAMILIES)
def model(
    request: pytest.FixtureRequest, tiny_folder: Callable[..., Path], open_model: Callable[..., Any]
) -> Any:
    return open_model(tiny_folder(request.param, **UNTIED))


@pytest.fixture
def llama(tiny_folder: Callable[..., Path], open_model: Callable[..., Any]) -> Any:
    return open_model(tiny_folder("llama", **UNTIED))


@pytest.mark.parametrize("places", [1, 3, 20])
def test_ragged_prompts_get_what_generate_gives(model: Any, places: int) -> None:
    prompts = ragged()
    found = answers(model, prompts, places=places)
    assert found == [generated(model, prompt, 10) for prompt in prompts]
    assert len({tuple(ids) for ids in found}) == len(prompts)


def test_finished_rows_are_replaced_and_limits_are_each_rows_own(model: Any) -> None:
    prompts = ragged(12)
    limits = [1 + 7 * n % 13 for n in range(12)]
    found = answers(model, prompts, limits, places=3)
    assert [len(ids) for ids in found] == limits
    assert found == [generated(model, prompt, limit) for prompt, limit in zip(prompts, limits, strict=True)]


def test_answers_end_at_a_stop_id(model: Any) -> None:
    prompts = ragged()
    free = answers(model, prompts, 14)
    stops = (free[0][2], free[1][5], free[2][0])
    found = answers(model, prompts, 14, stop_ids=frozenset(stops))
    assert found == [generated(model, prompt, 14, stops) for prompt in prompts]
    assert found[2] == free[2][:1]
    assert any(len(ids) == 14 for ids in found) or len({len(ids) for ids in found}) > 2


@pytest.mark.parametrize("length", [8, 30])
def test_a_shared_beginning_is_computed_once_and_changes_nothing(
    model: Any, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = ragged(begin=tuple(range(40, 40 + length)))
    computed = []

    def counted(name: str) -> Callable[..., Any]:
        plain = getattr(decode, name)

        def count(model: Any, cache: Any, tokens: Any, *places: Any) -> Any:
            computed.append(sum(map(len, tokens)))
            return plain(model, cache, tokens, *places)

        return count

    monkeypatch.setattr(generate, "read", counted("read"))
    monkeypatch.setattr(generate, "step", counted("step"))
    monkeypatch.setattr(generate, "guesses", lambda drafts, *_: [[] for _ in drafts])
    found = answers(model, prompts, places=3)
    read = sum(computed) - sum(len(answer) - 1 for answer in found)
    assert read == sum(map(len, prompts)) - length * (len(prompts) - 1)
    assert found == [generated(model, prompt, 10) for prompt in prompts]


def test_equal_prompts_share_all_but_their_last_token(model: Any) -> None:
    prompt = list(range(60, 75))
    assert answers(model, [prompt] * 4) == [generated(model, prompt, 10)] * 4


def test_the_cache_grows_while_rows_are_answered(model: Any) -> None:
    prompts = [[5], [7, 9], list(range(70))]
    limits = [140, 3, 66]
    found = answers(model, prompts, limits)
    assert found == [generated(model, prompt, limit) for prompt, limit in zip(prompts, limits, strict=True)]


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
@pytest.mark.parametrize("places", [2, 24])
def test_answers_that_repeat_themselves_take_fewer_passes_and_stay_the_same(
    family: str,
    places: int,
    tiny_folder: Callable[..., Path],
    open_model: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = open_model(tiny_folder(family, **UNTIED))
    with torch.no_grad():  # the next token depends on little but the last one, so that answers run in circles
        for name, parameter in model.named_parameters():
            parameter.mul_(0.01 if "layers." in name else 1.0)
    passes, plain = [], decode.step

    def counted(model: Any, cache: Any, tokens: Any, lengths: Any, wanted: Any) -> Any:
        passes.append(max(wanted))
        return plain(model, cache, tokens, lengths, wanted)

    monkeypatch.setattr(generate, "step", counted)
    prompts = ragged(24 if places > 2 else 4, longest=12)
    limits = [60 + number for number in range(len(prompts))]
    end = frozenset({1})  # which is the model's own for generate()
    found = answers(model, prompts, limits, places=places, stop_ids=end)
    for number in range(0, len(prompts), 3):
        assert found[number] == generated(model, prompts[number], limits[number])
    assert max(passes) == 5
    assert len(passes) < 0.8 * sum(map(len, found)) / places
    stop = found[0][-1]
    stopped = answers(model, prompts, limits, places=places, stop_ids=end | {stop})
    assert stopped == [ids[: ids.index(stop) + 1] if stop in ids else ids for ids in found]


def test_prompts_beyond_what_is_read_at_a_time(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "READ_TOKENS", 16)
    prompts = ragged(10)
    assert answers(llama, prompts, places=8) == [generated(llama, prompt, 10) for prompt in prompts]


@pytest.mark.parametrize("family", FAMILIES)
def test_adapter_on_and_off(
    family: str,
    tiny_folder: Callable[..., Path],
    open_model: Callable[..., Any],
    base_of: Callable[..., BaseFiles],
) -> None:
    folder = tiny_folder(family, **UNTIED)
    plain, prompts = open_model(folder), ragged(6)
    tuned = add_adapter(open_model(folder), LoraSpec(rank=4), base_of(folder).family, seed=0)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(len(name)))
    tuned.eval()
    on = answers(tuned, prompts)
    assert on == [generated(tuned.get_base_model(), prompt, 10) for prompt in prompts]
    with tuned.disable_adapter():
        off = answers(tuned, prompts)
    assert off == answers(plain, prompts)
    assert off != on


def test_quick_products_give_the_same_tokens_and_are_put_back(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "MANY_WEIGHTS", 1)
    prompts = ragged()
    assert answers(model, prompts) == [generated(model, prompt, 10) for prompt in prompts]
    assert not any("forward" in vars(module) for module in model.modules())


def test_nothing_is_left_behind(llama: Any) -> None:
    own = llama.config._attn_implementation
    decoding = start_decoding(llama, ragged(), [5] * 9, frozenset(), places=2)
    decoding.advance()
    assert torch.is_grad_enabled()
    assert llama.config._attn_implementation == own
    assert not any("forward" in vars(module) for module in llama.modules())


def test_samples_do_not_depend_on_the_rows_beside_them(model: Any) -> None:
    prompts = ragged()
    choice = Choice(temperature=1.3, top_p=0.9, top_k=50, seed=4)
    found = answers(model, prompts, choice=choice, places=4)
    assert found == answers(model, prompts, choice=choice, places=1)
    assert found[:3] == answers(model, prompts[:3], choice=choice, places=9)
    assert found != answers(model, prompts, choice=Choice(1.3, 0.9, 50, seed=5))
    assert found != answers(model, prompts)


def test_equal_prompts_get_samples_of_their_own(llama: Any) -> None:
    found = answers(llama, [[9, 8, 7]] * 4, choice=Choice(temperature=1.5))
    assert len({tuple(ids) for ids in found}) == 4


def test_a_very_low_temperature_is_greedy(llama: Any) -> None:
    assert answers(llama, ragged(4), choice=Choice(temperature=1e-300)) == answers(llama, ragged(4))


@pytest.mark.parametrize("choice", [Choice(), Choice(temperature=1.0)], ids=["greedy", "sampled"])
def test_scores_that_are_not_finite_are_an_error(llama: Any, choice: Choice) -> None:
    with torch.no_grad():
        llama.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        answers(llama, ragged(2), choice=choice)


def test_no_prompts_no_answers(llama: Any) -> None:
    assert answers(llama, []) == []

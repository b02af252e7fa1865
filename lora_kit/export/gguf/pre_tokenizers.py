"""How llama.cpp cuts text into words before merging, for the tokenizers that lora_kit exports.

llama.cpp carries no regular expressions in its files: ``tokenizer.ggml.pre`` names one of its own rules, and
a wrong name changes token ids without a word. Its converter knows tokenizers by a hash of their output, and
so fails for every new vocabulary; here the rule is found by what tokenizer.json says it does.
Rules and names: ``llm_tokenizer_bpe`` in ``src/llama-vocab.cpp`` of github.com/ggml-org/llama.cpp.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_CONTRACTIONS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_BEHIND = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """One of llama.cpp's rules.

    Args:
        name: Value of ``tokenizer.ggml.pre``.
        patterns: What llama.cpp splits by, one after another.
        signature: What tokenizer.json's ``pre_tokenizer`` comes to; see ``signature_of``.
        ignore_merges: Whether a word that is in the vocabulary is taken whole.
    """

    name: str
    patterns: tuple[str, ...]
    signature: tuple[str, ...]
    ignore_merges: bool = False


def _tiktoken(digits: str) -> str:
    return rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}{_BEHIND}"


def _adapted(digits: str) -> str:
    return rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}{_BEHIND}"


_ONE, _THREE = r"\p{N}", r"\p{N}{1,3}"
_BLOOM = " ?[^(\\s|.,!?…。，、।۔،)]+"  # noqa: RUF001 - the rule itself

PRE_TOKENIZERS = (
    PreTokenizer("gpt-2", (GPT_2,), ("words",)),
    PreTokenizer("smollm", (r"\p{N}", GPT_2), ("digits", "words")),
    PreTokenizer("llama-bpe", (_adapted(_THREE),), ("split " + _tiktoken(_THREE),), ignore_merges=True),
    PreTokenizer("qwen2", (_adapted(_ONE),), ("split " + _tiktoken(_ONE),)),
    PreTokenizer("bloom", (_BLOOM,), ("split " + _BLOOM,)),
)
BY_NAME = {rule.name: rule for rule in PRE_TOKENIZERS}


def signature_of(part: Json | None) -> tuple[str, ...]:
    """Reduce tokenizer.json's ``pre_tokenizer`` to its steps (bytes as characters is none)."""
    return tuple(step for leaf in _leaves(part) for step in _step(leaf))


def find_pre_tokenizer(spec: Json) -> PreTokenizer | None:
    """Return llama.cpp's rule for a byte-level BPE tokenizer, or None if it has none that lora_kit knows.

    Args:
        spec: The parsed ``tokenizer.json``.
    """
    signature = signature_of(spec.get("pre_tokenizer"))
    ignores = bool(spec["model"].get("ignore_merges", False))
    return next(
        (rule for rule in PRE_TOKENIZERS if (rule.signature, rule.ignore_merges) == (signature, ignores)),
        None,
    )


def _leaves(part: Json | None) -> Iterator[Json]:
    if part is None:
        return
    if part["type"] != "Sequence":
        yield part
        return
    for child in part["pretokenizers"]:
        yield from _leaves(child)


def _step(part: Json) -> list[str]:
    kind = part["type"]
    if kind == "ByteLevel" and not part.get("add_prefix_space"):
        return ["words"] if part.get("use_regex", True) else []
    if kind == "Digits" and part.get("individual_digits"):
        return ["digits"]
    if kind == "Split" and part.get("behavior") == "Isolated" and not part.get("invert"):
        return [f"split {part['pattern'].get('Regex')}"]
    return [str(part)]  # equal to nothing known

"""Text scores of published answers against published answers."""

import json
from statistics import fmean
from typing import Any

from lora_kit.harness.metrics.chrf import score as sentence_chrf
from lora_kit.harness.published.case import Case, Check, MissingInputError, compare
from lora_kit.harness.text_scores import (
    ROUGE_KINDS,
    corpus_bleu,
    corpus_chrf,
    exact_match,
    rouge_f,
    sentence_bleu,
    token_f1,
)

SAMPLE = 5  # items that are scored one by one when there is little time


def check_text_scores(case: Case) -> list[Check]:
    """Corpus scores of each pair of systems, and scores item by item."""
    path = case.folder / case.fields["file"]
    if not path.is_file():
        raise MissingInputError(f"no {case.fields['file']}")
    expected = json.loads(path.read_text(encoding="utf-8"))
    limit = case.tolerance("score_abs")
    checks = []
    for pair, scores in expected.get("corpus", {}).items():
        system, _, reference = pair.partition("|")
        try:
            texts = _texts(case, system, reference)
        except MissingInputError:
            continue  # the answers of some systems may not be passed on
        got = _corpus(*texts, rouge=case.thorough)
        wanted = {name: scores[name] for name in scores if case.thorough or not name.startswith("rouge")}
        checks += compare(pair, wanted, got, limit)
    for name, rows in expected.items():
        if name.startswith("per_item_"):
            checks += _items(case, name, rows if case.thorough else rows[:SAMPLE], limit)
    return checks


def _texts(case: Case, system: str, reference: str) -> tuple[list[str], list[str]]:
    answers, references = case.answers(system), case.answers(reference)
    return [answers[item] for item in references], list(references.values())


def _corpus(answers: list[str], references: list[str], *, rouge: bool) -> dict[str, Any]:
    chrf2, chrfpp = (corpus_chrf(answers, references, word_order=order) for order in (0, 2))
    pairs = list(zip(answers, references, strict=True))
    return {
        **corpus_bleu(answers, references),
        "chrf2": chrf2[0],
        "chrf2_signature": chrf2[1],
        "chrfpp": chrfpp[0],
        "chrfpp_signature": chrfpp[1],
        **(_corpus_rouge(pairs) if rouge else {}),
        "token_f1": 100 * fmean(token_f1(a, r) for a, r in pairs),
        "exact_match": 100 * fmean(exact_match(a, r) for a, r in pairs),
        "mean_len_ratio_chars": sum(map(len, answers)) / sum(map(len, references)),
    }


def _corpus_rouge(pairs: list[tuple[str, str]]) -> dict[str, float]:
    """Seconds for each pair of systems: the longest common subsequence is computed in Python."""
    means = {}
    for name, stemmer in (("stem", True), ("nostem", False)):
        rows = [rouge_f(answer, reference, stemmer=stemmer) for answer, reference in pairs]
        means.update({f"{kind}_f_{name}": 100 * fmean(row[kind] for row in rows) for kind in ROUGE_KINDS})
    return means


def _items(case: Case, name: str, rows: list[dict[str, Any]], limit: float) -> list[Check]:
    """``per_item_13b_alpaca_vs_gpt35``: names of systems with underscores."""
    system, _, reference = name.removeprefix("per_item_").partition("_vs_")
    try:
        answers, references = (case.answers(part.replace("_", "-")) for part in (system, reference))
    except MissingInputError:
        return []
    checks = []
    for row in rows:
        answer, right = answers[row["id"]], references[row["id"]]
        rouge = rouge_f(answer, right, stemmer=True)
        got = {
            **{f"{kind}_f_stem": value for kind, value in rouge.items()},
            "sentence_chrf2": sentence_chrf(answer, right),
            "sentence_bleu_effective": sentence_bleu(answer, right),
            "token_f1": token_f1(answer, right),
        }
        checks += compare(f"item {row['id']}", {key: row[key] for key in row if key != "id"}, got, limit)
    return checks

"""The README.md of an exported model folder; its names come from recipes and downloads: escaped."""

from collections.abc import Mapping

from lora_kit.artifacts.model_card import markdown_text, yaml_text

_NAMES = {
    "base": "Base model",
    "base_fingerprint": "Base fingerprint",
    "training_fingerprint": "Training fingerprint",
    "template": "Chat template",
}


def exported_card(name: str, provenance: Mapping[str, str], weights: str) -> str:
    """Write the card.

    Args:
        name: Of the model.
        provenance: ``base``, ``base_fingerprint``, ``training_fingerprint``, ``template``,
            as far as known.
        weights: Fingerprint of the weights.
    """
    base = provenance.get("base", "")
    front = ["---", "library_name: transformers", *([f"base_model: {yaml_text(base)}"] if base else [])]
    facts = {label: provenance[key] for key, label in _NAMES.items() if provenance.get(key)}
    rows = [
        f"| {label} | {markdown_text(value)} |" for label, value in (facts | {"Weights": weights}).items()
    ]
    return "\n".join(
        [
            *front,
            "tags:",
            "- lora_kit",
            "---",
            "",
            f"# {markdown_text(name)}",
            "",
            "Exported with lora_kit; `certificate.json` says what was checked.",
            "",
            "| | |",
            "|---|---|",
            *rows,
            "",
        ]
    )

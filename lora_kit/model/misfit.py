"""What transformers reports after it has loaded weights, taken seriously.

It fills missing tensors with random numbers and drops unexpected ones with a warning; both are errors here.
"""

from collections.abc import Mapping
from typing import Any

from lora_kit.errors import ModelError, Problem
from lora_kit.model.folder import listing


def refuse_misfit(report: Mapping[str, Any], *, where: str) -> None:
    """Check the loading report of ``from_pretrained(..., output_loading_info=True)``.

    Raises:
        ModelError: Tensors are missing, unexpected, of another shape, or could not be converted.
    """
    findings = {
        "missing": report["missing_keys"],
        "unexpected": report["unexpected_keys"],
        "of another shape": [str(entry[0]) for entry in report["mismatched_keys"]],
        "damaged": [str(message) for message in report.get("error_msgs", ())],
    }
    problems = [
        Problem(
            f"{len(names)} tensors are {what}: {listing(sorted(names))}", where, "", "use a complete model"
        )
        for what, names in findings.items()
        if names
    ]
    if problems:
        raise ModelError.collect(problems)

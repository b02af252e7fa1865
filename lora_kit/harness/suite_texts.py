"""What the items of suites say, for a look at whether training rows say it too."""

from collections.abc import Iterable

from lora_kit.data.overlap import SuiteText
from lora_kit.harness.suite import load_suite


def suite_texts(names: Iterable[str]) -> tuple[SuiteText, ...]:
    """Return prompt and reference of every item.

    Args:
        names: Of suites, or their files.

    Raises:
        DataError: There is no such suite, or it is damaged.
    """
    return tuple(
        SuiteText(suite.name, item.id, item.prompt, item.reference)
        for suite in map(load_suite, names)
        for item in suite.items
    )

"""The tables of everything that can be chosen by name; strings only, nothing heavy is imported.

Adding a format, a family, an engine or a metric is one file and one line here.
"""

from lora_kit.errors import DataError, ModelError, RecipeError
from lora_kit.registry import Registry

FORMATS = Registry(
    "data format",
    {
        "alpaca": "lora_kit.data.formats.alpaca:FORMAT",
        "dolly": "lora_kit.data.formats.dolly:FORMAT",
        "messages": "lora_kit.data.formats.messages:FORMAT",
    },
    RecipeError,
)

TEMPLATES = Registry(
    "template",
    {
        "alpaca": "lora_kit.data.templates.alpaca:TEMPLATE",
        "dolly": "lora_kit.data.templates.dolly:TEMPLATE",
        "chatml": "lora_kit.data.templates.chatml:TEMPLATE",
    },
    RecipeError,
)

FAMILIES = Registry(
    "model family",
    {
        "llama": "lora_kit.model.families.llama:FAMILY",
        "gpt_neox": "lora_kit.model.families.gpt_neox:FAMILY",
        "bloom": "lora_kit.model.families.bloom:FAMILY",
    },
    ModelError,
)

METRICS = Registry(
    "metric",
    {
        "rouge_l": "lora_kit.harness.metrics.rouge_l:METRIC",
        "chrf": "lora_kit.harness.metrics.chrf:METRIC",
    },
    DataError,
)

ENGINES = Registry(
    "engine",
    {"transformers": "lora_kit.harness.engines.transformers_engine:ENGINE"},
    RecipeError,
)

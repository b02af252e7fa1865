"""The tables of everything that can be chosen by name; strings only, nothing heavy is imported.

Adding a format, a family, an engine, a metric or a judge is one file and one line here.
"""

from lora_kit.errors import DataError, ModelError, RecipeError
from lora_kit.registry import Registry

FORMATS = Registry(
    "data format",
    {
        "alpaca": "lora_kit.data.formats.alpaca:FORMAT",
        "dolly": "lora_kit.data.formats.dolly:FORMAT",
        "messages": "lora_kit.data.formats.messages:FORMAT",
        "sharegpt": "lora_kit.data.formats.sharegpt:FORMAT",
        "openassistant": "lora_kit.data.formats.openassistant:FORMAT",
        "prompt_completion": "lora_kit.data.formats.prompt_completion:FORMAT",
        "code": "lora_kit.data.formats.code:FORMAT",
        "text": "lora_kit.data.formats.text:FORMAT",
    },
    RecipeError,
)

TEMPLATES = Registry(
    "template",
    {
        "alpaca": "lora_kit.data.templates.alpaca:TEMPLATE",
        "dolly": "lora_kit.data.templates.dolly:TEMPLATE",
        "chatml": "lora_kit.data.templates.chatml:TEMPLATE",
        "guanaco": "lora_kit.data.templates.guanaco:TEMPLATE",
        "llama-2-chat": "lora_kit.data.templates.llama_2_chat:TEMPLATE",
        "llama-3": "lora_kit.data.templates.llama_3:TEMPLATE",
        "mpt-chat": "lora_kit.data.templates.mpt_chat:TEMPLATE",
        "open-assistant": "lora_kit.data.templates.open_assistant:TEMPLATE",
        "plain": "lora_kit.data.templates.plain:TEMPLATE",
        "stablelm-tuned": "lora_kit.data.templates.stablelm_tuned:TEMPLATE",
        "starchat": "lora_kit.data.templates.starchat:TEMPLATE",
        "vicuna": "lora_kit.data.templates.vicuna:TEMPLATE",
        "zephyr": "lora_kit.data.templates.zephyr:TEMPLATE",
    },
    RecipeError,
)

FAMILIES = Registry(
    "model family",
    {
        "llama": "lora_kit.model.families.llama:FAMILY",
        "gpt_neox": "lora_kit.model.families.gpt_neox:FAMILY",
        "bloom": "lora_kit.model.families.bloom:FAMILY",
        "mistral": "lora_kit.model.families.mistral:FAMILY",
        "qwen2": "lora_kit.model.families.qwen2:FAMILY",
        "qwen3": "lora_kit.model.families.qwen3:FAMILY",
        "gemma": "lora_kit.model.families.gemma:FAMILY",
        "stablelm": "lora_kit.model.families.stablelm:FAMILY",
        "mpt": "lora_kit.model.families.mpt:FAMILY",
        "gpt_bigcode": "lora_kit.model.families.gpt_bigcode:FAMILY",
        "starcoder2": "lora_kit.model.families.starcoder2:FAMILY",
    },
    ModelError,
)

METRICS = Registry(
    "metric",
    {
        "rouge_l": "lora_kit.harness.metrics.rouge_l:METRIC",
        "chrf": "lora_kit.harness.metrics.chrf:METRIC",
        "bleu": "lora_kit.harness.metrics.bleu:METRIC",
        "token_f1": "lora_kit.harness.metrics.token_f1:METRIC",
        "exact_match": "lora_kit.harness.metrics.exact_match:METRIC",
        "repetition": "lora_kit.harness.metrics.repetition:METRIC",
        "distinct_2": "lora_kit.harness.metrics.distinct_2:METRIC",
        "embedding_similarity": "lora_kit.harness.metrics.embedding_similarity:METRIC",
    },
    DataError,
)

IMPORTERS = Registry(
    "kind of suite file",
    {
        "mt_bench": "lora_kit.harness.importers.mt_bench:IMPORTER",
        "vicuna": "lora_kit.harness.importers.vicuna:IMPORTER",
        "alpaca_eval": "lora_kit.harness.importers.alpaca_eval:IMPORTER",
        "csv": "lora_kit.harness.importers.table:CSV",
        "jsonl": "lora_kit.harness.importers.table:JSONL",
    },
    RecipeError,
)

ENGINES = Registry(
    "engine",
    {
        "transformers": "lora_kit.harness.engines.transformers_engine:ENGINE",
        "openai": "lora_kit.harness.engines.openai_engine:ENGINE",
        "file": "lora_kit.harness.engines.file_engine:ENGINE",
        "llama_cpp": "lora_kit.harness.engines.llama_cpp_engine:ENGINE",
        "vllm": "lora_kit.harness.engines.vllm_engine:ENGINE",
    },
    RecipeError,
)

JUDGES = Registry(
    "kind of judge",
    {
        "pairwise": "lora_kit.harness.judges.pairwise:JUDGE",
        "pair_score": "lora_kit.harness.judges.pair_score:JUDGE",
        "single": "lora_kit.harness.judges.single:JUDGE",
        "five_level": "lora_kit.harness.judges.five_level:JUDGE",
        "logprob_pair": "lora_kit.harness.judges.logprob_pair:JUDGE",
        "reference_guided": "lora_kit.harness.judges.reference_guided:JUDGE",
        "checklist": "lora_kit.harness.judges.checklist:JUDGE",
    },
    RecipeError,
)

EXPORTERS = Registry(
    "kind of export",
    {
        "gguf": "lora_kit.export.exporters.gguf:EXPORTER",
        "ollama": "lora_kit.export.exporters.ollama:EXPORTER",
        "safetensors": "lora_kit.export.exporters.safetensors:EXPORTER",
    },
    RecipeError,
)

# By model_type of config.json.
GGUF_ARCHITECTURES = Registry(
    "GGUF architecture",
    {
        "llama": "lora_kit.export.gguf.architectures.llama:ARCHITECTURE",
        "mistral": "lora_kit.export.gguf.architectures.llama:ARCHITECTURE",
        "qwen2": "lora_kit.export.gguf.architectures.qwen:QWEN2",
        "qwen3": "lora_kit.export.gguf.architectures.qwen:QWEN3",
        "gpt_neox": "lora_kit.export.gguf.architectures.gpt_neox:ARCHITECTURE",
        "bloom": "lora_kit.export.gguf.architectures.bloom:ARCHITECTURE",
        "mpt": "lora_kit.export.gguf.architectures.mpt:ARCHITECTURE",
        "stablelm": "lora_kit.export.gguf.architectures.stablelm:ARCHITECTURE",
        "gpt_bigcode": "lora_kit.export.gguf.architectures.gpt_bigcode:ARCHITECTURE",
        "starcoder2": "lora_kit.export.gguf.architectures.starcoder2:ARCHITECTURE",
    },
    ModelError,
)

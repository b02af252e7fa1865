"""The recipe as frozen values: every key, its type, its limits and its default.

Defaults live here and nowhere else. Unknown keys are refused. What a key does
is its ``description``, from which the README's reference and the JSON Schema
are generated.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictBool, StrictInt, StrictStr

LARGEST = 10**9  # of an integer: far above any sensible one, far below what overflows in torch
Name = Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Count = Annotated[StrictInt, Field(ge=1, le=LARGEST)]
NonNegative = Annotated[StrictInt, Field(ge=0, le=LARGEST)]
Text = Annotated[StrictStr, Field(min_length=1)]
Size = Annotated[
    StrictStr,
    Field(
        pattern=r"^([1-9][0-9]{0,5}(\.[0-9]{1,3})?|0\.[0-9]{0,2}[1-9]) ?(MB|GB|MiB|GiB)$",
        examples=["6GB", "512 MiB"],
    ),
]
FormatName = Literal[
    "auto",
    "alpaca",
    "dolly",
    "messages",
    "sharegpt",
    "openassistant",
    "prompt_completion",
    "code",
    "text",
]
Options = dict[Text, Text | Annotated[tuple[Text, ...], Field(strict=False)]]


class Spec(BaseModel):
    """Base of all sections: frozen, strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class BaseSpec(Spec):
    """The base model that stays frozen."""

    model: Text = Field(
        description="A hub id (`EleutherAI/pythia-160m`), a folder with safetensors, or "
        "`package:NAME/FILE.gguf` for a file inside an installed Python package."
    )
    revision: Text | None = Field(
        None, description="Commit of a hub model; the newest one is pinned if absent."
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Number type of the frozen weights; no float16, whose gradients overflow.",
    )


class MixSpec(Spec):
    """One more source of rows, besides `data.train`."""

    train: Text = Field(description="Rows, as in `data.train`.")
    format: FormatName = Field("auto", description="As `data.format`, for this source.")
    fields: dict[Text, Text] = Field({}, description="As `data.fields`, for this source.")
    options: Options = Field({}, description="As `data.options`, for this source.")
    weight: Annotated[FiniteFloat, Field(gt=0, le=1000)] | None = Field(
        None, description="Rows to take for each row of `data.train`; all rows if `count` is absent too."
    )
    count: Count | None = Field(None, description="Rows to take; exclusive with `weight`.")
    seed: NonNegative = Field(0, description="Seed of the choice of rows.")


class DataSpec(Spec):
    """The rows to learn from."""

    train: Text = Field(
        description="Rows (.jsonl, .json, .csv, also .gz; .parquet; a folder of these), `sample:NAME`, or "
        "`hub:OWNER/NAME[/SPLIT][@REVISION]`."
    )
    format: FormatName = Field(description="How a row becomes a conversation; `auto` tells it from the rows.")
    fields: dict[Text, Text] = Field(
        {}, description="Own columns by the format's field: `{instruction: question, output: answer}`."
    )
    options: Options = Field(
        {}, description="What the format leaves open: `{branches: best, languages: [en]}` of openassistant."
    )
    mix: Annotated[tuple[MixSpec, ...], Field(strict=False)] = Field(
        (),
        description="More sources: `[{train: b.jsonl, weight: 0.5}, {train: c.csv, count: 200}]`; "
        "also format, fields, options, seed.",
    )
    validation: Text | None = Field(None, description="File of held-out rows in the same format.")
    validation_fraction: Annotated[FiniteFloat, Field(ge=0.0, le=0.5)] = Field(
        0.05,
        description="Share of rows held out by content, relatives together, when `validation` is absent.",
    )
    template: Text = Field(
        "model",
        description="How a conversation becomes text: a name, or `model` for the tokenizer's own template.",
    )
    system: Text | None = Field(
        None, description="System prompt for conversations that have none of their own."
    )
    max_tokens: Count = Field(1024, description="Longest example in tokens.")
    overlong: Literal["error", "drop", "truncate_prompt"] = Field(
        "error", description="What happens to a longer example; the answer is never cut."
    )
    on_bad_row: Literal["error", "drop"] = Field(
        "error", description="What happens to a row that can't be read or converted."
    )
    on_empty: Literal["error", "drop"] = Field(
        "error", description="What happens to a row with an empty answer."
    )
    on_overlap: Literal["error", "drop"] = Field(
        "drop", description="What happens to a training row that is in `validation` too, or nearly."
    )
    limit: Count | None = Field(None, description="Use only the first N rows.")


class LoraSpec(Spec):
    """The adapter."""

    rank: Count = Field(16, description="Rank R of the two matrices B (out x R) and A (R x in).")
    alpha: Annotated[FiniteFloat, Field(gt=0)] = Field(
        32.0,
        description="Scaling numerator: the update is alpha / rank x BA, or alpha / sqrt(rank) x BA.",
    )
    dropout: Annotated[FiniteFloat, Field(ge=0.0, lt=1.0)] = Field(
        0.0, description="Dropout on the input of A."
    )
    targets: (
        Literal["all-linear", "attention", "mlp"]
        | Annotated[tuple[Text, ...], Field(min_length=1, strict=False)]
    ) = Field("all-linear", description="Layers that get an adapter: a role, or a list of module names.")
    layers: Annotated[
        StrictStr, Field(pattern=r"^(all|last-[1-9][0-9]{0,3})$", examples=["all", "last-8"])
    ] = Field(
        "all",
        description="Which decoder layers get an adapter: `all`, or `last-8` for the upper eight; below the "
        "first one nothing is kept for the backward pass.",
    )
    rank_stabilized: StrictBool = Field(
        default=False, description="Scale by alpha / sqrt(rank) (arXiv 2312.03732)."
    )
    init: Literal["default", "pissa", "loftq"] = Field(
        "default",
        description="What A and B begin with. `default`: A random, B zero. `pissa`: the principal part of "
        "each weight, which training then moves (arXiv 2404.02948); the saved adapter has twice the rank and "
        "belongs to the unchanged base. `loftq`: what 4 bits lose of each weight (arXiv 2310.08659, one "
        "round); the adapter belongs to the 4-bit base and its dequantised weights.",
    )
    dora: StrictBool = Field(
        default=False,
        description="Train the length of each row of the weights as well, apart from its direction (DoRA, "
        "arXiv 2402.09353): slower, often better at low rank.",
    )
    train_tokens: Annotated[tuple[Text | NonNegative, ...], Field(strict=False)] = Field(
        (),
        description="Tokens whose rows of embedding and head are trained too, by text or number: "
        '`["<|im_end|>", 17]`. The tokenizer must have them (reserved ones, for instance): none is added.',
    )


class QuantizationSpec(Spec):
    """How the frozen weights are stored."""

    method: Literal["none", "nf4", "fp4", "int8"] = Field(
        "none",
        description="Type that the frozen linear layers are held in (bitsandbytes): `nf4` or `fp4`, 4 bits "
        "(QLoRA); `int8`, with a constant for each row. Products are made with the unpacked weights. "
        "Embedding, head and norms stay as they are.",
    )
    double_quant: StrictBool = Field(default=True, description="Quantize the quantization constants too.")
    compute_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Number type that 4-bit weights are multiplied in."
    )


class DeadlineSpec(Spec):
    """When a run has to be over."""

    max_minutes: Annotated[FiniteFloat, Field(gt=0, le=1e6)] | None = Field(
        None,
        description="Minutes of the whole command, loading, saving and audits included (with `lora-kit run` "
        "evaluation, merge and report too): as many steps as there is time for, the learning rate at its end "
        "with the last one, planned anew when the machine's speed changes. `steps` or `epochs` beside it are "
        "the most that are made; without them rows are passed over again until the time is used. A run that "
        "was cut goes on with the minutes that are left.",
    )
    finish_by: (
        Annotated[StrictStr, Field(pattern=r"^([01]?[0-9]|2[0-3]):[0-5][0-9]$", examples=["23:00", "06:30"])]
        | None
    ) = Field(
        None,
        description="The same up to a time of day, the next one after the run begins (in the machine's time "
        "zone); exclusive with `max_minutes`.",
    )

    @property
    def has_deadline(self) -> bool:
        """Whether the number of steps depends on time."""
        return self.max_minutes is not None or self.finish_by is not None


class TrainSpec(DeadlineSpec):
    """The training loop."""

    steps: Count | None = Field(None, description="Optimizer steps; exclusive with `epochs`.")
    epochs: Count | None = Field(
        None, description="Passes over the rows; 1 if `steps` is absent too, and there is no deadline."
    )
    batch_size: Count = Field(8, description="Examples in one optimizer step.")
    micro_batch_tokens: Count | Literal["auto"] = Field(
        1024,
        description="Most tokens computed at once: memory and speed, not the gradient (dropout draws aside). "
        "`auto` measures before the first step which is fastest here, and keeps to that (two runs may then "
        "differ by rounding). It is lowered where an allocation fails.",
    )
    learning_rate: Annotated[FiniteFloat, Field(gt=0, le=1)] = Field(
        2e-4, description="Peak learning rate of AdamW."
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="Decay after the warm-up, to zero."
    )
    warmup_steps: NonNegative = Field(0, description="Steps of linear warm-up.")
    weight_decay: Annotated[FiniteFloat, Field(ge=0)] = Field(
        0.0, description="Decoupled weight decay of AdamW."
    )
    max_grad_norm: Annotated[FiniteFloat, Field(gt=0)] | None = Field(
        1.0, description="Clip the gradient to this global norm; null for no clipping."
    )
    validate_every: Count | None = Field(
        None, description="Steps between validations; null for the end only."
    )
    save_every: Count = Field(50, description="Steps between checkpoints.")
    keep_checkpoints: Count = Field(2, description="Newest checkpoints that are kept, besides the best.")
    keep: Literal["best", "last"] = Field(
        "best", description="Which checkpoint becomes the adapter (best by validation)."
    )
    seed: NonNegative = Field(0, description="Seed of adapter, order and dropout.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to train.")


class EngineSpec(Spec):
    """How the numbers are computed: speed, memory and disk, never the result (beyond rounding)."""

    share_prefixes: Literal["auto", "off"] = Field(
        "auto",
        description="Compute what rows of a micro-batch have in common at their beginning once; `auto` does "
        "so without `lora.dropout` (rows would share its draws) and for models without ALiBi.",
    )
    memory: Literal["standard", "low", "offload"] = Field(
        "standard",
        description="`low` keeps only the inputs of the model's layers and computes the rest again in the "
        "backward pass: a third more work, for long rows or little memory; `offload` keeps all in the host's "
        "memory instead of the GPU's (saves nothing on a CPU).",
    )
    trunk_cache: Literal["off", "on"] = Field(
        "off",
        description="`on` computes the layers below the first adapter once for each row and keeps their "
        "output on disk, exactly, for later epochs and runs (with `lora.layers: last-8`); the run says "
        "beforehand how much that takes. Rows are computed alone, so `share_prefixes` acts above only.",
    )
    optimizer: Literal["adamw", "adamw-8bit-paged"] = Field(
        "adamw",
        description="`adamw-8bit-paged` keeps AdamW's moments in 8 bits, in memory that moves between GPU "
        "and host (bitsandbytes; CUDA only, and not tried on a GPU yet; a resume asks for "
        "`--allow-inexact-resume`).",
    )
    memory_limit: Size | None = Field(
        None,
        description="Most memory that training may take, such as `6GB` (of the GPU, else of the process): "
        "`train.micro_batch_tokens: auto` stays below it; a run that can't is refused before its first step.",
    )
    audit: Literal["on", "off"] = Field(
        "on",
        description="`on` looks at model, rows and disk before the first step, in seconds, and at the "
        "adapter after the last one, in a process of its own; what is wrong ends the command with an error.",
    )
    trackers: Annotated[
        tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...], Field(strict=False)
    ] = Field(
        (),
        description="Services that each step is told to, besides metrics.jsonl: `[tensorboard]` writes into "
        "RUN/trackers, the others read their own settings. Extras of the same names; one that fails never "
        "stops a run.",
    )


class EvaluateSpec(Spec):
    """What the adapter is judged on after training."""

    suites: Annotated[tuple[Text, ...], Field(strict=False)] = Field(
        ("quickstart",), description="Suites that `lora-kit run` evaluates base and adapter on."
    )
    max_new_tokens: Count = Field(128, description="Longest generated answer.")
    batch_size: Count = Field(16, description="Prompts that are answered at once.")
    bootstrap_samples: Annotated[StrictInt, Field(ge=100, le=LARGEST)] = Field(
        10_000, description="Resamples behind each interval."
    )
    seed: NonNegative = Field(0, description="Seed of the bootstrap.")


class Recipe(Spec):
    """One run, complete: base model x data x adapter x training x evaluation."""

    name: Name = Field(description="Name of the run; its directory is runs/<name>-<fingerprint>.")
    base: BaseSpec
    data: DataSpec
    lora: LoraSpec = LoraSpec()
    quantization: QuantizationSpec = QuantizationSpec()
    train: TrainSpec = TrainSpec()
    engine: EngineSpec = EngineSpec()
    evaluate: EvaluateSpec = EvaluateSpec()

"""A GGUF file inside an installed package becomes a model folder, once, in the cache.

What is fine-tuned is the dequantized model: GGUF's 4-bit numbers are turned into float32 exactly, and every
later step (fingerprint, merge, evaluation) speaks of those.
"""

import importlib.util
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from textwrap import shorten
from typing import Any

from lora_kit.errors import MachineError, ModelError
from lora_kit.model.cache import build_folder
from lora_kit.model.fingerprint import file_sha256
from lora_kit.model.gguf_file import check_gguf
from lora_kit.model.misfit import refuse_misfit
from lora_kit.model.quiet import quiet_libraries

CONVERTER = "2"  # raise it when the files that convert() writes change
# llama.cpp's rules that cut around every digit, then as GPT-2 does (llm_tokenizer_bpe, src/llama-vocab.cpp).
# transformers doesn't know them and cuts as GPT-2 alone, which joins Arabic digits and what "½" follows.
DIGITS_APART = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}


def find_in_package(package: str, file: str, *, key: str = "base.model") -> Path:
    """Find a file inside an installed package without importing the package.

    Raises:
        ModelError: The package is not installed, or has no such file.
    """
    where = f"package:{package}/{file}"
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"no installed package '{package}'", where=where, cure=f"pip install {package}")
    for location in spec.submodule_search_locations:
        root = Path(location).resolve()
        path = (root / file).resolve()
        if path.is_relative_to(root) and path.is_file():
            return path
    raise ModelError(f"the package '{package}' has no file '{file}'", where=where, cure=f"correct {key}")


def converted_folder(path: Path, *, cache: Path) -> Path:
    """Return the folder with a GGUF file's float32 safetensors and tokenizer, converting it if need be.

    The folder is found by the file's content: moving or reinstalling the file does not convert it again.

    Raises:
        ModelError: The file is not a model that can be converted.
        MachineError: The cache can't be written.
    """
    from importlib.metadata import version

    digest = file_sha256(path, cache=cache)
    name = f"{path.stem}-{digest[:16]}-v{CONVERTER}-transformers-{version('transformers')}"
    return build_folder(cache / "bases" / name, lambda folder: convert(path, folder))


def convert(path: Path, folder: Path) -> None:
    """Write config.json, model.safetensors (float32) and the tokenizer files into an empty folder.

    Raises:
        ModelError: The file is damaged, or transformers can't make sense of it.
        MachineError: Not enough memory.
    """
    import torch  # noqa: F401 - first: where there is none, nothing of a large file is read

    header = check_gguf(path)
    digits_apart = header.metadata.get("tokenizer.ggml.pre") in DIGITS_APART
    link = folder / "model.gguf"  # alone in its folder: transformers looks at what lies beside a model
    link.symlink_to(path)
    try:
        with quiet_libraries(), redirect_stderr(StringIO()):  # a bar of tqdm's that no switch turns off
            _convert_weights(link, folder)
            _convert_tokenizer(link, folder, digits_apart=digits_apart)
    except MemoryError as error:
        raise MachineError("not enough memory to convert the model", where=str(path)) from error
    except (ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise ModelError(
            f"transformers can't convert it: {shorten(str(error), 200)}", where=str(path)
        ) from error
    finally:
        link.unlink()


def _convert_weights(link: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, **_place(link)
    )
    refuse_misfit(report, where=str(link.resolve()))
    # The quantizer of GGUF stays attached and refuses to be saved; the weights are dense by now.
    model.hf_quantizer = None
    for leftover in ("quantization_config", "_model_name_or_path"):
        if hasattr(model.config, leftover):
            delattr(model.config, leftover)
    model.save_pretrained(folder, max_shard_size="2GB")


def _convert_tokenizer(link: Path, folder: Path, *, digits_apart: bool) -> None:
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, **_place(link))
    if digits_apart:
        words = ByteLevel(add_prefix_space=False, use_regex=True)
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), words])
    for option in ("local_files_only", "is_local"):
        tokenizer.init_kwargs.pop(option, None)
    tokenizer.save_pretrained(folder)


def _place(link: Path) -> dict[str, Any]:
    return {"gguf_file": link.name, "local_files_only": True, "trust_remote_code": False}

"""bitsandbytes is imported by whoever uses something of it, and by nobody else."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Python = Callable[[str], None]
BEGIN = (
    "import sys, torch\nfrom lora_kit.model.standby import stand_by\nassert stand_by() and not stand_by()\n"
)
LOADED = "('bitsandbytes.functional' in sys.modules)"
UNUSED = "assert not " + LOADED + "\n"


@pytest.fixture
def run(fresh_python: Python) -> Python:
    """Run code in a process in which bitsandbytes stands by."""
    pytest.importorskip("bitsandbytes")
    return lambda code: fresh_python(BEGIN + code)


@pytest.mark.parametrize(
    "use",
    [
        "import bitsandbytes as bnb; bnb.nn.Linear4bit",
        "from bitsandbytes.functional import dequantize_4bit",
        "import bitsandbytes.optim",
        "from bitsandbytes import nn; assert nn.Linear8bitLt",
        "from peft.import_utils import is_bnb_4bit_available; assert is_bnb_4bit_available()",
    ],
)
def test_it_is_imported_once_something_is_used(run: Python, use: str) -> None:
    run(
        "import importlib.util, peft, transformers, accelerate\n"
        "assert importlib.util.find_spec('bitsandbytes') is not None\n"
        f"{UNUSED}{use}\nassert {LOADED}\n"
        "import bitsandbytes; assert bitsandbytes.__version__ and bitsandbytes.nn.Linear4bit(8, 8)\n"
    )


def test_what_it_does_not_have_is_an_attribute_error(run: Python) -> None:
    run("import bitsandbytes\nassert not hasattr(bitsandbytes, 'nothing')\n")


ADAPTED = """
from transformers import LlamaConfig, LlamaForCausalLM
from peft import LoraConfig, get_peft_model
from lora_kit.model.standby import without_quantized_layers
config = LlamaConfig(
    hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9
)
with without_quantized_layers():
    get_peft_model(LlamaForCausalLM(config), LoraConfig(target_modules=["q_proj"]))
"""


def test_a_model_without_quantized_layers_does_not_need_it(run: Python) -> None:
    run(ADAPTED + UNUSED)


def test_quantized_layers_are_found_afterwards(run: Python) -> None:
    """In the same process: nothing of peft remembers that they were not looked for."""
    run(f"""{ADAPTED}
import bitsandbytes as bnb
model = LlamaForCausalLM(config)
model.model.layers[0].self_attn.q_proj = bnb.nn.Linear4bit(8, 8, bias=False)
model.is_loaded_in_4bit = True
with without_quantized_layers():
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
layer = adapted.base_model.model.model.layers[0].self_attn.q_proj
assert type(layer).__module__ == 'peft.tuners.lora.bnb', type(layer)
""")


def test_without_it_nothing_stands_by(monkeypatch: pytest.MonkeyPatch) -> None:
    from lora_kit.model import standby

    monkeypatch.setattr(standby, "NAME", "no_such_library")
    assert not standby.stand_by()
    assert "no_such_library" not in sys.modules


def test_one_that_is_broken_is_an_import_error_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lora_kit.model import standby

    (tmp_path / "broken_library").mkdir()
    (tmp_path / "broken_library/__init__.py").write_text("raise ImportError('no libcudart')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(standby, "NAME", "broken_library")
    assert standby.stand_by()
    library = importlib.import_module("broken_library")
    with pytest.raises(ImportError, match="no libcudart"):
        _ = library.nn
    with pytest.raises(ImportError, match="no libcudart"):
        importlib.import_module("broken_library.nn")
    assert "broken_library" not in sys.modules


FAMILIES = """
import sys
from lora_kit.model.standby import families_stand_by
assert families_stand_by() and not families_stand_by()
import transformers
from transformers.models.llama.modeling_llama import LlamaModel
models = sys.modules["transformers.models"]
assert transformers.models is models and models.llama
assert "transformers.models.bert" not in sys.modules
assert type(models).__name__ == "_Standby"
"""


@pytest.mark.parametrize(
    "use",
    [
        "from transformers.models import bert, BertConfig; assert BertConfig is bert.BertConfig",
        "assert models.BertConfig is transformers.BertConfig",
        "assert not hasattr(models, 'nothing')",
    ],
)
def test_the_folders_of_models_are_looked_through_once_somebody_asks(fresh_python: Python, use: str) -> None:
    code = f"{FAMILIES}{use}\nassert type(sys.modules['transformers.models']).__name__ == '_LazyModule'\n"
    code += "assert models.GPT2Config is transformers.GPT2Config\n"  # whoever has the first module
    fresh_python(code)


def test_auto_classes_need_no_look_through_the_folders(fresh_python: Python) -> None:
    code = (
        f"{FAMILIES}from transformers import AutoModelForCausalLM\n"
        "config = transformers.GPTNeoXConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, "
        "num_attention_heads=1, vocab_size=9)\n"
        "assert AutoModelForCausalLM.from_config(config)\n"
        "assert type(sys.modules['transformers.models']).__name__ == '_Standby'\n"
    )
    fresh_python(code)


def test_families_that_are_imported_don_t_stand_by() -> None:
    from lora_kit.model.standby import families_stand_by

    importlib.import_module("transformers.models")
    assert not families_stand_by()

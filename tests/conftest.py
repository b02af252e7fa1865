"""What all tests share: tiny random models with a tokenizer, the shared data, a closed network, own caches.

The environment is set at import, because huggingface_hub and transformers read it when they are imported.
"""

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import settings

# Forty examples find what a hundred do nearly as often, in less than half of the time; and no clock decides.
settings.register_profile("lora_kit", max_examples=40, deadline=None)
settings.load_profile("lora_kit")

SCRATCH = Path(tempfile.mkdtemp(prefix="lora-kit-tests-"))
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HOME=str(SCRATCH / "hf"),
    LORA_KIT_CACHE=str(SCRATCH / "lora_kit"),
    MPLCONFIGDIR=str(SCRATCH / "matplotlib"),
    XDG_CACHE_HOME=str(SCRATCH / "cache"),
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
)
for variable in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_CACHE", "LORA_KIT_FAILPOINT"):
    os.environ.pop(variable, None)

SPECIAL_TOKENS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXT_FOR_MERGES = [
    "the quick brown fox jumps over the lazy dog and then the dog sleeps in the sun",
    "what is the answer to this question? the answer is that there is no other answer",
    "system user assistant instruction input response below is an instruction that describes a task",
]
SIZES: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
    },
    "gpt_neox": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
    },
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 256},
    "gpt_bigcode": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
}
SIZES["mistral"] = SIZES["llama"] | {"sliding_window": 256, "tie_word_embeddings": False}
SIZES["qwen2"] = SIZES["llama"]
SIZES["qwen3"] = SIZES["gemma"] = SIZES["llama"] | {"head_dim": 8}
SIZES["stablelm"] = SIZES["mistral"] | {"use_qkv_bias": True, "partial_rotary_factor": 0.5}
del SIZES["stablelm"]["sliding_window"]
SIZES["starcoder2"] = SIZES["llama"] | {"sliding_window": 256}

TinyFolder = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Sums are added in one order: the same bits on any machine of the same kind."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """A run syncs dozens of files; no test here cuts the power, and what is killed keeps what it wrote."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to connect fails the test; nothing in lora_kit may swallow it, so it is no OSError."""

    def refuse(_: socket.socket, address: object) -> None:
        pytest.fail(f"a socket was opened to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real rows and references that are not part of the repository."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the shared data are not on this machine ({folder})")
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a byte-level BPE of 300 tokens; `<|im_start|>` and `<|im_end|>` are added tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXT_FOR_MERGES, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    folder = tmp_path_factory.mktemp("tiny-tokenizer")
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> TinyFolder:
    """Factory ``tiny_folder(family, seed=0, **config overrides)`` of model folders; each is made once.

    The folders are shared by the session: copy one before changing it.
    """
    made: dict[str, Path] = {}

    def build(family: str, *, seed: int = 0, **overrides: Any) -> Path:
        key = f"{family} {seed} {sorted(overrides.items())}"
        if key not in made:
            made[key] = tmp_path_factory.mktemp(f"tiny-{family}")
            shutil.copytree(tiny_tokenizer, made[key], dirs_exist_ok=True)
            save_random_model(made[key], family, seed, SIZES[family] | overrides)
        return made[key]

    return build


def save_random_model(folder: Path, family: str, seed: int, sizes: dict[str, Any]) -> None:
    """All weights are random, biases and norms too, and large enough that mistakes show in the logits."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    defaults = {"vocab_size": 300, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    config = AutoConfig.for_model(family, **(defaults | sizes))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            norm = any(part in name for part in ("norm", "ln_f")) and name.endswith("weight")
            center = 1.0 if norm and family != "gemma" else 0.0  # Gemma's norms multiply by 1 + w
            parameter.normal_(center, 0.15, generator=generator)
    model.save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_llama(tiny_folder: TinyFolder) -> Path:
    """LLaMA, 2 layers, 4 heads with 2 key-value heads, tied head."""
    return tiny_folder("llama")


@pytest.fixture(scope="session")
def tiny_neox(tiny_folder: TinyFolder) -> Path:
    """GPT-NeoX (Pythia), rotary on a quarter of each head, head of its own."""
    return tiny_folder("gpt_neox")


@pytest.fixture(scope="session")
def tiny_bloom(tiny_folder: TinyFolder) -> Path:
    """BLOOM, ALiBi positions, tied head."""
    return tiny_folder("bloom")


@pytest.fixture(params=["llama", "gpt_neox", "bloom"])
def tiny_any(request: pytest.FixtureRequest, tiny_folder: TinyFolder) -> Iterator[Path]:
    """Each of the three families in turn."""
    return tiny_folder(request.param)


ROWS = [
    ("Name the colour of %s.", "It is the colour number %d, as everybody knows."),
    ("How many legs has %s?", "It has %d legs."),
    ("Say something about %s", "There is not much to say about it, but %d times is enough."),
]
THINGS = (
    "a fox",
    "the dog",
    "a brown cat",
    "the sun",
    "a lazy question",
    "the answer",
    "a quick word",
    "the text",
)


@pytest.fixture
def tiny_recipe(tmp_path: Path, recipe_in: Callable[..., Path]) -> Callable[..., Path]:
    """Factory ``tiny_recipe(family="llama", folder=None, **sections)``: a recipe beside 24 Dolly rows.

    ``sections`` are nested dicts that are merged over the defaults: ``train={"steps": 4}``.
    """
    return lambda family="llama", folder=None, **sections: recipe_in(folder or tmp_path, family, **sections)


@pytest.fixture(scope="session")
def fresh_python() -> Callable[[str], None]:
    """Run code in a process that has imported nothing yet; it has to end well."""

    def run(code: str) -> None:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture(scope="session")
def recipe_in(tiny_folder: TinyFolder) -> Callable[..., Path]:
    """Factory ``recipe_in(folder, family, **sections)``, as ``tiny_recipe``, for runs that tests share."""
    import json

    def build(home: Path, family: str = "llama", **sections: dict[str, Any]) -> Path:
        home.mkdir(parents=True, exist_ok=True)
        rows = [
            {"instruction": ask % thing, "context": "", "response": say % number, "category": "open_qa"}
            for number, thing in enumerate(THINGS)
            for ask, say in ROWS
        ]
        (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        shutil.copytree(tiny_folder(family), home / "base", dirs_exist_ok=True)
        recipe: dict[str, Any] = {
            "name": "tiny",
            "base": {"model": "./base"},
            "data": {"train": "rows.jsonl", "format": "dolly", "validation_fraction": 0.2},
            "lora": {"rank": 4, "alpha": 8, "dropout": 0.1},
            "train": {
                "steps": 6,
                "batch_size": 4,
                "save_every": 2,
                "learning_rate": 1e-2,
                "validate_every": 3,
            },
            "engine": {"audit": "off"},  # it costs a process; tests/audit looks at it
            "evaluate": {"suites": [], "max_new_tokens": 8, "bootstrap_samples": 100},
        }
        for name, section in sections.items():
            recipe[name] = {**recipe.get(name, {}), **section} if isinstance(section, dict) else section
        path = home / "recipe.yaml"
        path.write_text(json.dumps(recipe, indent=1), encoding="utf-8")  # JSON is YAML
        return path

    return build


@pytest.fixture(scope="session")
def tiny_gguf(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny LLaMA and its tokenizer in one GGUF file (float32), as llama.cpp's converter writes it."""
    import json

    import gguf
    from safetensors.numpy import load_file

    config = json.loads((tiny_llama / "config.json").read_text("utf-8"))
    path = tmp_path_factory.mktemp("tiny-gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    add_gguf_tokenizer(writer, tiny_llama)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, tensor in load_file(tiny_llama / "model.safetensors").items():
        head_count = next((count for part, count in heads.items() if part in name), None)
        packed = tensor
        if head_count:  # GGUF interleaves the two halves of each rotary pair
            halves = tensor.reshape(head_count, 2, -1, tensor.shape[1])
            packed = halves.swapaxes(1, 2).reshape(tensor.shape)
        writer.add_tensor(names.get_name(name, (".weight",)), packed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_gguf_tokenizer(writer: Any, folder: Path) -> None:
    """Write a byte-level BPE tokenizer into a GGUF file."""
    import json

    bpe = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    special = {entry["content"] for entry in bpe["added_tokens"]}
    tokens = sorted(bpe["model"]["vocab"], key=bpe["model"]["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in bpe["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(CHAT_TEMPLATE)


class ChatStub:
    """A chat server on loopback; ``script(handler, body)`` says how it answers, ``bodies`` what it was asked.

    ``handler.complete(text, **fields)`` sends a chat completion, ``handler.send(status, body, **headers)``
    anything else, ``handler.raw(data)`` bytes as they are, after which the connection closes.
    """

    def __init__(self) -> None:
        import http.server
        import json
        import threading

        stub = self
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.script: Callable[[Any, dict[str, Any]], None] = lambda handler, _: handler.complete("7 7")
        lock = threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    stub.bodies.append(body)
                    stub.headers.append(dict(self.headers.items()))
                self.asked = body.get("model", "")
                stub.script(self, body)

            def complete(self, text: object, *, finish: str = "stop", **fields: Any) -> None:
                choice = {
                    "index": 0,
                    "finish_reason": finish,
                    "message": {"role": "assistant", "content": text},
                }
                answer = {"object": "chat.completion", "model": self.asked, "choices": [choice]}
                self.send(200, json.dumps(answer | fields))

            def send(self, status: int, body: str = "", **headers: str) -> None:
                self.send_response(status)
                data = body.encode()
                for name, value in ({"Content-Length": str(len(data))} | headers).items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(data)

            def raw(self, data: bytes) -> None:
                self.wfile.write(data)
                self.wfile.flush()
                self.close_connection = True

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that hangs up is part of the tests."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        """End it, if it is not ended yet."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def chat_stub() -> Iterator[ChatStub]:
    """A chat server on loopback that does what the test wants."""
    stub = ChatStub()
    yield stub
    stub.close()


Forked = Callable[[Callable[[], int]], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def forked(tmp_path: Path) -> Forked:
    """``forked(function)``: call it in a copy of this process, which may be killed; its exit code and stderr.

    A process of its own for the price of a fork, where a new one would import everything first.
    """

    def call(function: Callable[[], int]) -> "subprocess.CompletedProcess[str]":
        said = tmp_path / "forked.log"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # other threads of ours only wait
            pid = os.fork()
        if not pid:
            _end_with(function, said)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return subprocess.CompletedProcess([], code, stderr=said.read_text("utf-8", "replace"))

    return call


def _end_with(function: Callable[[], int], said: Path) -> NoReturn:
    """Become a process that does this and nothing else; pytest's own end must not run in it."""
    code = 70
    try:
        stream = said.open("w", buffering=1, encoding="utf-8")
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        sys.stdout = sys.stderr = stream
        code = function()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


class FakeTime:
    """A clock that only sleeping moves; ``slept`` lists the sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Move the clock."""
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def fake_time() -> FakeTime:
    """Time that costs nothing."""
    return FakeTime()


BROWSER_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1440,900"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium without a window, driven by Selenium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    programs = [shutil.which("chromium"), shutil.which("chromedriver")]
    if None in programs:
        pytest.skip("Debian's packages chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in (*BROWSER_FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    yield driver
    driver.quit()

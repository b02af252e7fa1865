"""Fetch a model from the Hugging Face hub: one pinned commit, safetensors and tokenizer files only.

The hub's bot that offers converted pickles in a pull request is never used: a repository without safetensors
is refused.
"""

from pathlib import Path

from lora_kit.hub import Repository
from lora_kit.model.folder import refuse_pickles

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
    *TOKENIZER_FILES,
)


def fetch(model_id: str, revision: str | None, *, key: str = "base.model") -> tuple[Path, str]:
    """Return the folder of a hub model in the hub's own cache, and the commit that it holds.

    Args:
        model_id: ``owner/name``.
        revision: Branch, tag or commit; the default branch if absent. A commit that is in the cache needs no
            network.
        key: What named the model, for messages.

    Raises:
        ModelError: No such model or revision, no access, or only pickle weights.
        MachineError: The hub can't be reached or fails, and the cache does not have the revision complete.
    """
    repository = Repository(model_id, key=key)
    commit = repository.pin(revision)
    folder = repository.fetch(commit, FILES)
    if not any(folder.glob("*.safetensors")):
        refuse_pickles(repository.names(commit), where=model_id)
    return folder, commit

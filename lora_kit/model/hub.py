"""Fetch a model from the Hugging Face hub: one pinned commit, safetensors and tokenizer files only.

A branch name is resolved to a commit once and the commit is what is fetched and recorded, so a repository
that changes in between is never mixed. Without network the cache answers, with the same commit or not at all.
The hub's bot that offers converted pickles in a pull request is never used: a repository without safetensors
is refused.
"""

from pathlib import Path

from lora_kit.errors import LoraKitError, MachineError, ModelError
from lora_kit.model.folder import refuse_pickles

FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


def fetch(model_id: str, revision: str | None) -> tuple[Path, str]:
    """Return the folder of a hub model in the hub's own cache, and the commit that it holds.

    Args:
        model_id: ``owner/name``.
        revision: Branch, tag or commit; the default branch if absent. A commit that is in the cache needs no
            network.

    Raises:
        ModelError: No such model or revision, no access, or only pickle weights.
        MachineError: The hub can't be reached or fails, and the cache does not have the revision complete.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        commit = api.resolve_revision(model_id, revision=revision).resolved
        folder = Path(api.snapshot_download(model_id, revision=commit, allow_patterns=list(FILES)))
    except Exception as error:
        raise _explained(error, model_id, revision) from error
    if not any(folder.glob("*.safetensors")):
        refuse_pickles(_names(model_id, commit), where=model_id)
    return folder, commit


def _names(model_id: str, commit: str) -> list[str]:
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        return [file.path for file in get_cached_repo_tree(model_id, revision=commit)]
    except CachedRepoTreeNotFoundError:
        return []


def _explained(error: Exception, model_id: str, revision: str | None) -> LoraKitError:
    """Turn what huggingface_hub raises into one line."""
    from huggingface_hub import errors

    wanted = f"{model_id}@{revision}" if revision else model_id
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
    if isinstance(error, errors.GatedRepoError) or status == 403:
        cure = "accept its terms on the hub and run `hf auth login`"
        return ModelError("the model is gated and this account has no access", where=wanted, cure=cure)
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError("the hub has no such revision", where=wanted, cure="correct base.revision")
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError) or status in {401, 404}:
        cure = "correct base.model, or run `hf auth login` for a private one"
        return ModelError("the hub has no such model, or hides it", where=wanted, cure=cure)
    if status == 429:
        return MachineError(
            "the hub says that there were too many requests", where=wanted, cure="try again later"
        )
    if status:
        return MachineError(f"the hub answered with an error {status}", where=wanted, cure="try again later")
    cure = "connect to the network, or name a revision that was fetched before"
    return MachineError(
        f"can't be fetched ({type(error).__name__}) and is not in the cache", where=wanted, cure=cure
    )

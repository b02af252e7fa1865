"""One pinned commit of a repository on the Hugging Face hub, fetched into the hub's own cache.

A branch name is resolved to a commit once and the commit is what is fetched and recorded, so a repository
that changes in between is never mixed. Without network the cache answers, with the same commit or not at all.
Models and data sets share this; what goes wrong is said in one line that names the recipe's key.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lora_kit.errors import DataError, LoraKitError, MachineError, ModelError


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository as a recipe names it.

    Args:
        id: ``owner/name``.
        kind: What it holds.
        key: The recipe's key that names it, for messages.
        revision_key: The key that names the revision.
    """

    id: str
    kind: Literal["model", "dataset"] = "model"
    key: str = "base.model"
    revision_key: str = "base.revision"

    def pin(self, revision: str | None) -> str:
        """Return the commit that a branch, tag or commit stands for; the default branch's if None.

        Raises:
            ModelError: No such model or revision, or no access; for data sets a DataError.
            MachineError: The hub can't be reached or fails, and the cache does not know the revision.
        """
        from huggingface_hub import HfApi

        try:
            pinned = HfApi().resolve_revision(self.id, revision=revision, repo_type=self.kind)
            return str(pinned.resolved)
        except Exception as error:
            raise self._explained(error, revision) from error

    def fetch(self, commit: str, patterns: Sequence[str]) -> Path:
        """Return the folder of a commit with those of its files that have these names or patterns.

        Raises:
            ModelError: No access; for data sets a DataError.
            MachineError: The hub can't be reached or fails, and the cache does not have all of them.
        """
        from huggingface_hub import HfApi

        try:
            folder = HfApi().snapshot_download(
                self.id, revision=commit, repo_type=self.kind, allow_patterns=list(patterns)
            )
            return Path(folder)
        except Exception as error:
            raise self._explained(error, commit) from error

    def names(self, commit: str) -> list[str]:
        """Return the paths of all files of a commit that was fetched from; empty if they aren't known."""
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        try:
            tree = get_cached_repo_tree(self.id, revision=commit, repo_type=self.kind)
            return [file.path for file in tree]
        except CachedRepoTreeNotFoundError:
            return []

    def _explained(self, error: Exception, revision: str | None) -> LoraKitError:
        """Turn what huggingface_hub raises into one line."""
        from huggingface_hub import errors

        wanted = f"{self.id}@{revision}" if revision else self.id
        wrong, what = (ModelError, "model") if self.kind == "model" else (DataError, "data set")
        status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
        if isinstance(error, errors.GatedRepoError) or status == 403:
            cure = "accept its terms on the hub and run `hf auth login`"
            return wrong(f"the {what} is gated and this account has no access", where=wanted, cure=cure)
        if isinstance(error, errors.RevisionNotFoundError):
            return wrong("the hub has no such revision", where=wanted, cure=f"correct {self.revision_key}")
        if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError) or status in {
            401,
            404,
        }:
            cure = f"correct {self.key}, or run `hf auth login` for a private one"
            return wrong(f"the hub has no such {what}, or hides it", where=wanted, cure=cure)
        if status == 429:
            found = "the hub says that there were too many requests"
            return MachineError(found, where=wanted, cure="try again later")
        if status:
            found = f"the hub answered with an error {status}"
            return MachineError(found, where=wanted, cure="try again later")
        cure = "connect to the network, or name a revision that was fetched before"
        found = f"can't be fetched ({type(error).__name__}) and is not in the cache"
        return MachineError(found, where=wanted, cure=cure)

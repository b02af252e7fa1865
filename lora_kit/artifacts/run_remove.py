"""Removes a run: all of it or nothing, never what its links lead to, never one that is at work."""

from lora_kit.artifacts.commit import discard
from lora_kit.artifacts.disk import disk_errors
from lora_kit.artifacts.folder_lock import held
from lora_kit.artifacts.run_dir import RunDir
from lora_kit.errors import MachineError, RecipeError


def remove_run(run: RunDir) -> None:
    """Remove a run directory. It goes out of sight at once, so that a kill leaves no half run.

    Raises:
        RecipeError: It is not a run, or a link to one.
        RunLockedError: A process is at work in it.
        MachineError: The file system refuses.
    """
    if run.path.is_symlink():
        raise RecipeError(
            "is a link: its target is not removed through it",
            where=str(run.path),
            cure=f"remove the link, or the run itself: {run.path.resolve()}",
        )
    if not run.is_run():
        raise RecipeError("is not a run of lora_kit", where=str(run.path), cure="remove it by hand")
    with held(run.lock_file, option="run"), disk_errors(run.path):
        discard(run.path)
    trash = f".trash-{run.path.name}-"
    for left in run.path.parent.iterdir():
        if left.name.startswith(trash):
            raise MachineError("can't be removed wholly", where=str(left), cure="remove the rest by hand")

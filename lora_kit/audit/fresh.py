"""The audit of a run's adapter in a process that knows nothing of its training."""

import subprocess

from lora_kit.artifacts.run_dir import RunDir
from lora_kit.audit.end import adapter_identity
from lora_kit.audit.findings import Audit, read_audit, read_parts
from lora_kit.errors import IncompleteError
from lora_kit.model.memory import return_freed_memory
from lora_kit.own_process import own_command, own_environment
from lora_kit.train.observe import Observer
from lora_kit.train.out_of_memory import release

PHASE = "· "  # how the command line begins a line about a part of the work


def audit_run(run: RunDir, observer: Observer) -> Audit:
    """Audit a run's adapter, unless that was done, and raise what is wrong with it.

    Args:
        run: Finished, and not locked by this process.
        observer: Whom to tell.

    Raises:
        ModelError: Something failed, now or when it was audited before; the adapter stays where it is.
        IncompleteError: The process ended before the audit did.
    """
    audit, last = _known(run), ""
    if audit is None:
        release()  # the trained model, so that there is room for another one
        return_freed_memory()
        last = _in_fresh_process(run, observer)
        audit = _known(run)
        if audit is None:
            raise IncompleteError(
                f"the audit of the adapter did not come to its end{': ' + last if last else ''}",
                where=str(run.adapter),
                cure=f"the adapter is in place; audit it with: lora-kit audit {run.path}",
            )
        audit.tell(observer)
    audit.raise_if_failed()
    return audit


def _known(run: RunDir) -> Audit | None:
    """What was found of the adapter as it is; None if it was not audited."""
    part = read_parts(run).get("end")
    if not isinstance(part, dict) or part.get("adapter") != adapter_identity(run.adapter):
        return None
    return read_audit(part)


def _in_fresh_process(run: RunDir, observer: Observer) -> str:
    """Run the command; pass on what it is at; return the last line that is none of these."""
    last = ""
    with subprocess.Popen(  # noqa: S603 - our own command
        own_command("lora_kit", "audit", str(run.path), "--json"),
        env=own_environment(PYTHONIOENCODING="utf-8", COLUMNS="1000", NO_COLOR="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    ) as child:
        assert child.stderr is not None
        for line in child.stderr:
            text = line.rstrip()
            if text.startswith(PHASE):
                observer.phase(text.removeprefix(PHASE))
            elif text:
                last = text
    return last or f"exit code {child.returncode}"

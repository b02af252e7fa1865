"""The audit before the first step: five checks on the user's own rows, of which training notices nothing."""

import time
from concurrent.futures import ThreadPoolExecutor

from lora_kit.audit.end_mark import check_end_marks
from lora_kit.audit.findings import Audit, write_audit
from lora_kit.audit.gradients import check_gradients
from lora_kit.audit.room import Need, check_room, check_saving
from lora_kit.data.encode import Encoder
from lora_kit.data.row_file import lengths_of
from lora_kit.model.adapter_inject import adapter_parameters
from lora_kit.model.bare import bare_model
from lora_kit.model.predict_memory import MemoryNeed
from lora_kit.train.job import TrainJob
from lora_kit.train.observe import Observer
from lora_kit.train.plan import CHECKPOINT_PARTS, checkpoints_at_once
from lora_kit.train.runtime import free_memory


def audit_start(job: TrainJob, encoder: Encoder, predicted: MemoryNeed, observer: Observer) -> Audit:
    """Look at a run before its first step. Weights, gradients and random numbers stay as they are.

    Args:
        job: The run, which has no checkpoint yet.
        encoder: What its rows were encoded with.
        predicted: Memory that its training takes.
        observer: Whom to tell.

    Raises:
        ModelError: A matrix gets no gradient, rows see each other, or answers have no end mark.
        MachineError: The disk has too little room, or does not give back what was written.
    """
    began = time.perf_counter()
    need = _need(job, predicted)
    with ThreadPoolExecutor(1) as beside:  # one waits for the disk, the other computes
        saving = beside.submit(check_saving, job.run, need)
        found = *check_gradients(job), check_end_marks(job.train, encoder)
        findings = *found, saving.result(), check_room(job.run, need)
    audit = Audit(findings, time.perf_counter() - began)
    write_audit(job.run, "start", audit)
    audit.tell(observer)
    audit.raise_if_failed()
    return audit


def _need(job: TrainJob, predicted: MemoryNeed) -> Need:
    adapter = sum(p.numel() * p.element_size() for p in adapter_parameters(job.model).values())
    weights = bare_model(job.model).get_input_embeddings().weight
    spec = job.plan.spec
    memory = 0  # unknown where tokens at once are chosen by measuring
    if spec.micro_batch_tokens != "auto":
        longest = int(lengths_of(job.train).max())  # a row above the budget stands alone
        fuller = max(1.0, longest / spec.micro_batch_tokens)
        memory = int(fuller * predicted.activations) + predicted.work + predicted.adapter - adapter
    return Need(
        checkpoint=CHECKPOINT_PARTS * adapter,
        checkpoints=checkpoints_at_once(spec),
        merged=predicted.parameters * weights.element_size(),
        memory=memory,
        memory_free=free_memory(),
    )

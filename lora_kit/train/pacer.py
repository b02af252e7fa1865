"""Keeps a run's deadline: measures, decides how many steps there are, and writes it down before it counts.

The clock decides only where nothing is written yet. So the learning rate is a function of step and record,
and a run that was killed, or is audited, makes the same steps again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

import numpy as np
import torch
from accelerate.utils import broadcast

from lora_kit.data.row_file import lengths_of
from lora_kit.errors import ModelError, RecipeError
from lora_kit.train.clock import next_time
from lora_kit.train.deadline import FORWARD, Pace, Timetable
from lora_kit.train.deadline_record import DeadlineRecord, Decision, read_deadline, write_deadline
from lora_kit.train.job import Deadline, Known, TrainJob
from lora_kit.train.observe import Observer
from lora_kit.train.plan import TrainPlan, Turn, most_steps
from lora_kit.train.run_record import CURE

SAVING_SECONDS = 1.0  # of a checkpoint, before one was timed
LEAVING = 0.4  # of the time that starting takes: the adapter's folder, the ledger, the end of the process
WRITE_EVERY = 10.0  # seconds; so much of the used time may be lost by a kill


class Pacer:
    """The deadline of a run, if it has one; without one, its plan stays as it is.

    Args:
        job: The run.
        observer: Whom to tell.
    """

    def __init__(self, job: TrainJob, observer: Observer) -> None:
        self.job = job
        self.observer = observer
        self.plan: TrainPlan = job.plan
        self.deadline: Deadline | None = job.deadline
        self.record = DeadlineRecord("", "", 0.0, 0.0)
        self.pace = Pace(0.0)
        self.validation = self.saving = self.starting = self.end = self.written = 0.0
        lengths = lengths_of(job.train) if job.deadline else np.ones(1)
        self.lengths = lengths
        self.mean_tokens = float(lengths.sum()) / job.plan.windows_per_epoch
        self.most = most_steps(job.plan.spec, job.plan.rows)

    def begin(self, step: int, turns: list[list[int]], rehearse: Callable[[], float]) -> None:
        """Find the run's plan, or make it.

        Args:
            step: Steps that are done.
            turns: The plan's changes up to there, as the checkpoint says.
            rehearse: Measures seconds per token; called before the first step of a run.

        Raises:
            RecipeError: There is no time for a single step.
            ModelError: The record is damaged, gone, or not the one that the checkpoint was made with.
        """
        if self.deadline is None:
            return
        found = read_deadline(self.job.run)
        self.job.accelerator.wait_for_everyone()
        known = [list(turn) for turn in found.turns[: len(turns)]] if found else []
        if (step and found is None) or known != turns:
            what = "is not the one that the checkpoint was made with" if found else "is missing"
            raise ModelError(what, where=str(self.job.run.deadline), cure=CURE)
        self._open(found)
        if found is not None and found.decisions:
            self.pace.prior = found.decisions[-1].seconds_per_token
            self._follow(found.turns)
            if not found.finished:
                self._go_on(step)
        else:
            self.pace.prior = rehearse()
            self._first()

    @property
    def live(self) -> bool:
        """Whether the clock still has a say."""
        return self.deadline is not None and not self.record.finished

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """Time a validation or a checkpoint; the last one counts."""
        began = self._now()
        yield
        if self.live:
            setattr(self, part, self._now() - began)
            if part == "saving":
                self._write()

    def made(self, step: int, tokens: int, seconds: float) -> None:
        """Note that a step was made; the plan may be another one from here on.

        Args:
            step: The step; its validation and its checkpoint are still to come.
            tokens: In its window.
            seconds: It took, pauses of the machine aside.
        """
        if not self.live:
            return
        self.pace.add(tokens, seconds)
        table = self._timetable()
        margin = table.margin(self.record.allotted_seconds)
        available = self._left() - margin
        last = self.record.decisions[-1]
        if step < last.after and table.seconds(step, last.after) <= available + margin:
            if self._now() - self.written > WRITE_EVERY:
                self._write()
            return
        steps = table.changed(step, self.plan.steps, available, margin, self.most)
        [steps] = self._agreed(steps)
        if steps != self.plan.steps or step < last.after:
            self._decide(step, steps)
        elif self._now() - self.written > WRITE_EVERY:
            self._write()

    def progress(self, step: int) -> dict[str, list[list[int]]]:
        """What a checkpoint says of the plan; nothing without a deadline."""
        if self.deadline is None:
            return {}
        return {"turns": [list(turn) for turn in self.record.turns if turn.after <= step]}

    def finish(self) -> None:
        """Note that the last step was made and saved."""
        if self.live:
            self.record = replace(self.record, finished=True)
            self._write()

    # --- the record -----------------------------------------------------------------------------------------

    def _open(self, found: DeadlineRecord | None) -> None:
        """Begin to count; the moment that is asked for is the one of the run's beginning."""
        assert self.deadline is not None, "called with a deadline"
        session, began = self.deadline.session, self.deadline.session.began
        self.starting = session.starting or self._now() - began
        asked, seconds, until = self.deadline.asked, self.deadline.seconds, ""
        if found is not None:
            asked, seconds, until = found.asked, found.allotted_seconds, found.until
        wall = session.wall()
        if until or self.deadline.finish_by:
            moment = datetime.fromisoformat(until) if until else next_time(self.deadline.finish_by, wall)
            left = (moment - wall).total_seconds()
            until, self.end = moment.isoformat(timespec="seconds"), self._now() + left
            seconds = seconds if found else left + self._now() - began
        else:
            self.end = began + seconds - (found.used_seconds if found else 0.0)
        session.used_before = found.used_seconds if found else 0.0
        self.record = found or DeadlineRecord(asked, until, seconds, 0.0)

    def _write(self) -> None:
        if self.job.accelerator.is_main_process:
            self.record = replace(self.record, used_seconds=self._used())
            write_deadline(self.job.run.deadline, self.record)
        self.written = self._now()

    def _decide(self, step: int, steps: int) -> None:
        """Let there be so many steps from here on; what was decided for later, in a cut session, goes."""
        before = self.plan.steps
        kept = tuple(one for one in self.record.decisions if one.after <= step)
        decision = Decision(step, steps, round(self._used(), 3), self.pace.seconds)
        self.record = replace(self.record, decisions=(*kept, decision))
        self._write()
        self._follow(self.record.turns)
        if step:
            self._show(steps)
            self.observer.noted(f"step {step}: {steps} steps instead of {before}, to end {self._when()}")
            self.tell()

    def _follow(self, turns: tuple[Turn, ...]) -> None:
        self.plan = self.job.plan.turned(turns)

    # --- the first and the next session ---------------------------------------------------------------------

    def _first(self) -> None:
        """Plan a new run."""
        table = self._timetable()
        available = self._left() - table.margin(self.record.allotted_seconds)
        steps = table.fitting(0, available, self.most) if table.pace else min(self.plan.steps, self.most)
        warmup = self.plan.spec.warmup_steps
        [steps] = self._agreed(steps)
        if steps > warmup:
            self._decide(0, steps)
            self._show(steps)
            return
        least = self._used() + table.seconds(0, warmup + 1)
        least += table.margin(max(least, self.record.allotted_seconds))
        what = f"about {steps} steps, and {warmup} are warm-up" if steps else "not a single step"
        more = f"allow {least / 60:.1f} minutes or more" + (", or lower train.warmup_steps" if warmup else "")
        raise RecipeError(
            f"there is time for {what}: a step takes about {table.step:.1f} s, starting took "
            f"{self.starting:.0f} s, and what comes after the steps about {table.seconds(0, 0):.0f} s",
            where=str(self.job.run.path),
            key="train.finish_by" if self.record.until else "train.max_minutes",
            cure=more,
        )

    def _go_on(self, step: int) -> None:
        """Go on by what is written; where there is no time for it, from here by the clock."""
        table = self._timetable()
        left = self._left()
        decided = max(self.record.decisions[-1].after, min(step + 1, self.plan.steps))
        needed = table.seconds(step, decided)
        if all(self._agreed(step >= self.plan.steps or needed <= left)):
            return
        if step == 0:
            raise RecipeError(
                self._gone(left) + ", and no checkpoint was saved",
                where=str(self.job.run.path),
                key="train.finish_by" if self.record.until else "train.max_minutes",
                cure="begin again in another --run-dir",
            )
        available = left - table.margin(self.record.allotted_seconds)
        [steps] = self._agreed(max(step + 1, table.fitting(step, available, self.most)))
        if steps == step + 1 and table.seconds(step, steps) > left:
            self.observer.noted(
                f"{self._gone(left)}: one more step, then the adapter is saved, too late; to train longer, "
                "begin another run with more time"
            )
        if step < self.record.decisions[-1].after:
            self.observer.noted("no time to repeat the lost steps as they were: planned anew from here")
        elif steps == self.plan.steps:
            return
        self._decide(step, steps)

    # --- measured -------------------------------------------------------------------------------------------

    def _timetable(self) -> Timetable:
        assert self.deadline is not None, "called with a deadline"
        pace = self.pace.seconds
        held_out = sum(len(row.input_ids) for row in self.job.validation) if not self.validation else 0
        device = self.job.accelerator.device.type
        known = Known(pace * FORWARD, self.starting, self.record.allotted_seconds, device)
        ending = self.deadline.afterwards(known)
        saving = self.saving or SAVING_SECONDS
        return Timetable(
            self.job.plan,
            self._tokens,
            self.mean_tokens,
            pace,
            self.validation or held_out * pace * FORWARD,
            saving,
            LEAVING * self.starting + saving + ending,
        )

    def _tokens(self, step: int) -> int:
        return int(self.lengths[[*self.job.plan.window(step).rows]].sum())

    def _now(self) -> float:
        return self.deadline.session.clock() if self.deadline else 0.0

    def _used(self) -> float:
        assert self.deadline is not None, "called with a deadline"
        return self.deadline.session.used_seconds

    def _left(self) -> float:
        return self.end - self._now()

    def _agreed(self, *values: int) -> list[int]:
        """Let all processes go by the main one's clock."""
        accelerator = self.job.accelerator
        if accelerator.num_processes == 1:
            return [*values]
        return [int(value) for value in broadcast(torch.tensor(values, device=accelerator.device))]

    # --- told -----------------------------------------------------------------------------------------------

    def _show(self, steps: int) -> None:
        if self.job.accelerator.is_main_process:
            self.job.run.update_state(steps=steps)

    def _when(self) -> str:
        if self.record.until:
            return f"by {datetime.fromisoformat(self.record.until):%H:%M}"
        return f"within {self.record.asked}"

    def _gone(self, left: float) -> str:
        if left <= 0:
            return f"the time is over ({self._when()})"
        return f"there is no time left for a step ({left:.0f} s, {self._when()})"

    def tell(self) -> None:
        """Tell the observer when the run ends, if it has to."""
        if self.live:
            ends = f"{datetime.fromisoformat(self.record.until):%H:%M}" if self.record.until else ""
            self.observer.planned(steps=self.plan.steps, seconds=self._left(), ends=ends)

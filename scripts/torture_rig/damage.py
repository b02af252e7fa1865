"""The corruption matrix: every file of a checkpoint damaged in every way, and the other files of a run."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from torture_rig.processes import train
from torture_rig.trials import Rig, Trial, Verdict

NEWEST, OLDER = "step-000008", "step-000006"
FILES = ("adapter.safetensors", "optimizer.safetensors", "state.json", "manifest.json")
OF_THE_RUN = ("metrics.jsonl", "run.json", "recipe.yaml", "data_report.json")
Harm = Callable[
    [Path, Path, Path], object
]  # the file, the same in the older checkpoint, the same of another run


def flip(position: float) -> Harm:
    """Flip a bit at a part of the file's length."""

    def harm(file: Path, _older: Path, _other: Path) -> None:
        content = bytearray(file.read_bytes())
        content[int(position * (len(content) - 1))] ^= 4
        file.write_bytes(content)

    return harm


def _truncate(file: Path, _older: Path, _other: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: -max(1, len(content) // 3)])


def _garble(file: Path, _older: Path, _other: Path) -> None:
    file.write_bytes(random.Random(5).randbytes(file.stat().st_size))


HARMS: dict[str, Harm] = {
    "missing": lambda file, _older, _other: file.unlink(),
    "empty": lambda file, _older, _other: file.write_bytes(b""),
    "truncated": _truncate,
    "bit flipped at its beginning": flip(0.02),
    "bit flipped in its middle": flip(0.5),
    "bit flipped at its end": flip(0.995),
    "garbled": _garble,
    "a folder": lambda file, _older, _other: (file.unlink(), file.mkdir()),
    "the older checkpoint's": lambda file, older, _other: shutil.copyfile(older, file),
    "another run's": lambda file, _older, other: shutil.copyfile(other, file),
}

LIKE_OTHERS = ("bit flipped at its beginning", "bit flipped at its end", "garbled", "a folder")


def matrix(rig: Rig, *, is_slim: bool) -> list[Trial]:
    """Each file with each harm, or one of a kind; two runs are trained to their fourth checkpoint first."""
    cut, other = rig.work / "cut", rig.work / "cut-other-seed"
    for folder, recipe in ((cut, "dropout"), (other, "other-seed")):
        train(rig.recipes[recipe], folder, LORA_KIT_FAILPOINT="checkpoint.after_verify@4=kill")
        assert (folder / "checkpoints" / NEWEST).is_dir()

    def cell(name: str, harm: Callable[[Path], object], skipped: str = NEWEST) -> Trial:
        return Trial(
            "damaged checkpoint" if skipped else "damaged run file",
            name,
            lambda: _damage(rig, name, harm, skipped),
        )

    def in_newest(file: str, harm: Harm) -> Callable[[Path], object]:
        return lambda run: harm(*(checkpoints / file for checkpoints in _places(run, other)))

    def in_run(file: str, harm: Harm) -> Callable[[Path], object]:
        return lambda run: harm(run / file, run / file, other / file)

    hows = [how for how in HARMS if not (is_slim and how in LIKE_OTHERS)]
    cells = [cell(f"{file}, {how}", in_newest(file, HARMS[how])) for file in FILES for how in hows]
    cells += [
        cell(f"{file}, empty in every checkpoint", lambda run, file=file: _empty_all(run, file))
        for file in FILES
    ]
    cells += [
        cell("a whole checkpoint of another number", _renamed, "step-000009"),
        cell("a whole checkpoint of another run", lambda run: _replaced(run, other), NEWEST),
        cell("a checkpoint that is a file", _a_file, ""),
    ]
    hows = [how for how in hows if how not in ("the older checkpoint's", "a folder")]
    return cells + [
        cell(f"{file}, {how}", in_run(file, HARMS[how]), "") for file in OF_THE_RUN for how in hows
    ]


def _places(run: Path, other: Path) -> tuple[Path, Path, Path]:
    return run / "checkpoints" / NEWEST, run / "checkpoints" / OLDER, other / "checkpoints" / NEWEST


def _empty_all(run: Path, file: str) -> None:
    for path in (run / "checkpoints").glob(f"step-*/{file}"):
        path.write_bytes(b"")


def _renamed(run: Path) -> None:
    (run / "checkpoints" / NEWEST).rename(run / "checkpoints" / "step-000009")


def _replaced(run: Path, other: Path) -> None:
    shutil.rmtree(run / "checkpoints" / NEWEST)
    shutil.copytree(other / "checkpoints" / NEWEST, run / "checkpoints" / NEWEST)


def _a_file(run: Path) -> None:
    shutil.rmtree(run / "checkpoints" / NEWEST)
    (run / "checkpoints" / NEWEST).write_bytes(b"not a folder")


def _damage(rig: Rig, name: str, harm: Callable[[Path], object], skipped: str) -> Verdict:
    folder = rig.work / name.replace(" ", "-").replace("'", "")
    shutil.copytree(rig.work / "cut", folder)
    harm(folder)
    return rig.judge(
        "dropout", folder, train(rig.recipes["dropout"], folder), skipped=skipped, may_refuse=True
    )

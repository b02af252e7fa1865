"""SIGKILL before and after the token budget is written: what is on disk counts."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def test_killed_around_the_choice_and_after_healing(tiny_recipe: Callable[..., Path], tmp_path: Path) -> None:
    steps = {"steps": 4, "save_every": 1, "validate_every": None}
    recipe = tiny_recipe(train={**steps, "micro_batch_tokens": "auto"})
    content = json.loads(recipe.read_text())
    content["train"]["micro_batch_tokens"] = 4096  # one micro-batch a step: the third call is step 3
    recipe.with_name("fixed.yaml").write_text(json.dumps(content))
    work = tmp_path / "work"
    work.mkdir()
    server = Path(__file__).with_name("budget_kill_server.py")
    done = subprocess.run(
        [sys.executable, str(server), str(recipe), str(work)],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    first, resumed = found["unbroken"].values()
    assert first["adapter"] != resumed["adapter"], "dropout draws by the split: the two must differ"
    assert {trial["killed"] for trial in found["trials"]} == {-9}
    assert {trial["written"] for trial in found["trials"]} == {True, False}
    for trial in found["trials"]:
        assert trial["resumed"] == 0
        assert trial["outcome"] == (first if trial["written"] else resumed)
    assert found["healed"]["unbroken"]["changes"][0]["step"] == 3
    assert found["healed"]["killed"] == found["healed"]["unbroken"]

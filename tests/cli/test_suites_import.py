"""`lora-kit suites import` from the command line."""

import json

from lora_kit.cli.app import run


def test_a_table_becomes_a_suite_that_show_reads(tmp_path, capsys):
    table = tmp_path / "q.csv"
    table.write_text("prompt,answer\nWho?,Ada\n")
    words = ["suites", "import", str(table), "--name", "mine", "--out", str(tmp_path / "out"), "--json"]
    assert run(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["prompts"] == 1
    assert run(["suites", "show", found["suite"]]) == 0
    assert "Ada" in capsys.readouterr().out
    assert run(words) == 3
    assert "is there already; pass --force to replace it" in capsys.readouterr().err

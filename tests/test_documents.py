"""README and docs: every command, piece of Python and config in them runs, on a tiny model and few steps."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.documents import DOCUMENTS, ROOT, blocks, commands, named
from support.wheel import installed_wheel

from lightning_bnf.cli.main import main
from lightning_bnf.evaluation.verify import VERIFIERS, verify
from lightning_bnf.reproduction import scores as matrix
from lightning_bnf.reproduction.runs import expanded, read_results

pytestmark = [pytest.mark.slow, pytest.mark.drawing]

README = DOCUMENTS["README.md"]

ON_CPU = {
    "trainer.accelerator": "cpu",
    "trainer.devices": "1",
    "trainer.strategy": "auto",
    "trainer.precision": "32-true",
}
SHORT = {
    "analyze": {"limit": "2", "max_new_tokens": "4"},
    "cache": {},
    "chat": {"max_new_tokens": "4"},
    "compare": {},
    "evaluate": {"limit": "1"},
    "export": {"rows": "2"},
    "fit": {
        **ON_CPU,
        "model.policy.init_args.dtype": "float32",
        "trainer.max_steps": "2",
        "trainer.limit_val_batches": "1",
        "data.examples_per_step": "2",
    },
    "generate": {"limit": "2", "max_new_tokens": "4"},
    "judge": {"limit": "2"},
    "likelihood": {
        "rows.pair_rows": "2",
        "rows.prompt_rows": "2",
        "rows.max_new_tokens": "4",
        "rows.prose": "text.jsonl",
    },
    "losses": {},
    "models": {},
    "near_duplicates": {"output": "near_duplicates"},
    "plan": {"data.max_tokens": "256"},
    "predict": {"trainer.limit_predict_batches": "1"},
    "prepare": {
        "train_prompts": "1",
        "validation_prompts": "1",
        "test_prompts": "1",
        "kept_out_prompts": "1",
        "families": "[plural]",
        "kept_out": "[]",
        "output": "out",
        "work": "work",
    },
    "report": {},
    "scores": {},
    "test": {"trainer.limit_test_batches": "1", "data.test": "data/quickstart/validation_pairs.jsonl"},
}
"""Command -> settings that make it short, and let it run without a GPU."""
SHORT_CALLBACK = {
    "configs/quickstart.yaml": {"trained_prompts": "2", "kept_out_prompts": "2", "pairs": "2"},
    "configs/experiment/collapse.yaml": {"rows": "2"},
}
SOURCE = {
    "analyze": "reference",
    "chat": None,
    "compare": None,
    "evaluate": "source",
    "generate": "source",
    "judge": "source",
    "likelihood": "reference",
    "prepare": "source",
    "losses": None,
    "models": None,
    "near_duplicates": None,
    "report": None,
    "scores": None,
    "rounds": "source",
}
"""Command -> the argument that names its model; a fit config's policy where it is not here."""
PARSED = {
    "reproduce": "hours; tests/reproduction/test_runs.py runs a small matrix",
    "rounds": "minutes; tests/reproduction/test_rounds.py runs them around stages that are stood in for",
    "bench": "minutes; tests/costs/bench runs it",
    "--sweep": "minutes; tests/costs/plan/test_sweep.py plans small shapes",
    "configs/analyze/table4_small.yaml": "reads the models of `reproduce table4`",
}
"""What is parsed with its config files and not run, and why."""
PAGES = [name for name, text in DOCUMENTS.items() if commands(text)]


def shortened(words: list[str], tiny_folder: str) -> list[str]:
    """The command with further arguments that make it run in seconds, on a tiny model and the CPU."""
    verb = words[0]
    source = SOURCE.get(verb, "model.policy.init_args.source") if "--server.model" not in words else None
    changes = SHORT[verb] | ({source: tiny_folder} if source else {})
    for config, settings in SHORT_CALLBACK.items():
        if verb == "fit" and config in words:
            changes |= {f"trainer.callbacks.init_args.{key}": value for key, value in settings.items()}
    if verb == "plan" and "--rows" in words:  # rows that are not read are planned at their longest
        changes |= {"data.options.max_length": "128"}
    if verb == "fit" and "--trainer.val_check_interval" not in words:
        changes |= {"trainer.val_check_interval": "2"}
    return [*words, *(part for name, value in changes.items() for part in (f"--{name}", value))]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_pairs: Callable[..., str]) -> Path:
    """A folder of a user: nothing in it but a file of his own pairs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("LIGHTNING_BNF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    write_pairs("mine.jsonl", rows=8)
    return tmp_path


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory, tiny_folder: str) -> Path:
    """The run folder that `make quickstart` leaves, with few steps."""
    folder = tmp_path_factory.mktemp("quickstart")
    (command,) = commands(DOCUMENTS["docs/quickstart.md"])[:1]
    assert " ".join(command) in (ROOT / "Makefile").read_text()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        main([*shortened(command, tiny_folder), "--trainer.default_root_dir", str(folder / "quickstart")])
    checkpoints = folder / "quickstart/checkpoints"
    shutil.copy(max(checkpoints.glob("*.ckpt")), checkpoints / "step=24.ckpt")
    return folder / "quickstart"


@pytest.fixture(scope="module")
def from_the_wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[list[list[str]]], tuple[int, str]]]:
    """Runs commands with the package as a wheel installs it, in this folder and environment; the status and what they
    said. One interpreter imports the package, and forks for each page."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = str(installed_wheel(folder))
    server = subprocess.Popen(
        [sys.executable, "-P", str(ROOT / "tests/support/page_commands.py"), wheel],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": wheel},
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    pipes = server.stdin, server.stdout

    def run(commands: list[list[str]]) -> tuple[int, str]:
        log = folder / "log"
        log.unlink(missing_ok=True)
        environment = os.environ | {"PYTHONPATH": wheel}
        asked = {"commands": commands, "folder": os.getcwd(), "environment": dict(environment), "log": str(log)}
        print(json.dumps(asked), file=pipes[0], flush=True)
        return int(pipes[1].readline()), log.read_text()

    yield run
    server.stdin.close()
    assert server.wait(300) == 0


@pytest.mark.parametrize("page", PAGES)
def test_every_command_runs_from_the_wheel(
    page: str, workplace: Path, quickstart: Path, tiny_folder: str, from_the_wheel: Callable[..., tuple[int, str]]
) -> None:
    """In a process that has no clone. A page's commands build on each other and on the quickstart at most, so they run
    in order in one folder."""
    listed = commands(DOCUMENTS[page])
    if any("runs/quickstart" in word for words in listed for word in words) or page == "docs/evaluate.md":
        shutil.copytree(quickstart, workplace / "runs/quickstart")
    for name, text in named(DOCUMENTS[page], "yaml").items():
        Path(name).write_text(text)
    write_rows_of_benchmarks()
    typed = []
    for words in listed:
        if reason := next((word for word in words if word in PARSED), None):
            assert PARSED[reason]
            arguments = expanded(words[1:]) if words[0] == "reproduce" else words[1:]
            typed.append([words[0], *arguments, "--print_config"])  # its config files are read, and nothing is run
        elif words != ["fit", "--config", "configs/quickstart.yaml"]:  # which the fixture ran
            typed.append(shortened(words, tiny_folder) + files_of(words))
    status, said = from_the_wheel(typed)
    assert status == 0, said[-3000:]
    assert said.endswith(f"{len(typed)} commands ran\n")


BENCHMARKS = ("bnf_asdiv", "bnf_commonsense_qa", "bnf_openbookqa")


def write_rows_of_benchmarks() -> None:
    lettered = {"question": "What is hot?", "options": "A. fire\nB. ice\nC. fog\nD. rain\nE. snow", "answer": "A. fire"}
    sums = {"passage": "Ann has 2 pens.", "question": "How many?", "answer": "2 (pens)"}
    for task in BENCHMARKS:
        Path(f"{task}.jsonl").write_text(json.dumps(sums if task == "bnf_asdiv" else lettered) + "\n")
    Path("text.jsonl").write_text(json.dumps({"text": "Fire is hot, and ice is cold."}) + "\n")


def files_of(words: list[str]) -> list[str]:
    """Local rows in place of those of an optional package."""
    setting, tasks = {"evaluate": ("--files", BENCHMARKS), "likelihood": ("--rows.files", BENCHMARKS[1:])}.get(
        words[0], ("", ())
    )
    return [setting, json.dumps({task: f"{task}.jsonl" for task in tasks})] if setting else []


def test_what_is_only_parsed_stands_somewhere() -> None:
    typed = {word for page in PAGES for words in commands(DOCUMENTS[page]) for word in words}
    assert set(PARSED) <= typed


def test_every_matrix_is_one_that_the_tests_of_runs_know() -> None:
    shipped = ROOT / "configs/reproduce"
    listed = [words[1:] for text in DOCUMENTS.values() for words in commands(text) if words[0] == "reproduce"]
    assert {Path(expanded(words, shipped)[1]).name for words in listed} == {
        path.name for path in shipped.glob("*.yaml")
    }


@pytest.mark.parametrize("page", [name for name, text in DOCUMENTS.items() if blocks(text, "python")])
def test_every_piece_of_python_runs(page: str, workplace: Path, quickstart: Path, tiny_folder: str) -> None:
    (workplace / "runs").mkdir()
    shutil.copytree(quickstart, "runs/quickstart")
    for source in blocks(DOCUMENTS[page], "python"):
        for name in ('"HuggingFaceTB/SmolLM2-360M-Instruct"', "load_model(BUNDLED)"):
            source = source.replace(name, f"load_model({tiny_folder!r})" if "BUNDLED" in name else repr(tiny_folder))
        exec(source, {"__name__": "document"})  # noqa: S102 - the documents' own code


def test_the_python_session_leaves_a_policy(workplace: Path, tiny_folder: str) -> None:
    (source,) = (block for block in blocks(README, "python") if "trainer.fit" in block)
    exec(source.replace('"HuggingFaceTB/SmolLM2-360M-Instruct"', repr(tiny_folder)), {})  # noqa: S102
    assert (workplace / "runs/py/policy/adapter_model.safetensors").is_file()


def test_a_loss_of_ones_own_in_three_steps(workplace: Path, tiny_folder: str) -> None:
    """As the README says: a module, a YAML file, `--model.loss`."""
    (source,) = (block for block in blocks(README, "python") if "class MeanMargin" in block)
    (path,) = re.findall(r"`class_path: (\S+)\.MeanMargin`", README)
    Path(f"{path}.py").write_text(source)
    Path("my_loss.yaml").write_text(f"class_path: {path}.MeanMargin\n")
    command = ["fit", "--data.train", "mine.jsonl", "--model.loss", "my_loss.yaml", "--allow", path]
    main(shortened(command, tiny_folder))
    assert f"{path}.MeanMargin" in Path("runs/latest/config.yaml").read_text()


def test_the_verifier_of_contributing_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = (block for block in blocks(DOCUMENTS["CONTRIBUTING.md"], "python") if "ends_with_full_stop" in block)
    names: dict[str, Any] = {}
    exec(source, names)  # noqa: S102
    monkeypatch.setitem(VERIFIERS, "ends_with_full_stop", names["ends_with_full_stop"])
    assert [verify(text, {"name": "ends_with_full_stop"}) for text in ("Yes.", "Yes")] == [1.0, 0.0]


@pytest.mark.parametrize("page", [name for name, text in DOCUMENTS.items() if blocks(text, "json")])
def test_the_rows_are_read_as_what_the_page_calls_them(page: str, tmp_path: Path) -> None:
    from lightning_bnf.datamodules.reading.formats import FORMATS
    from lightning_bnf.datamodules.reading.matching import detect_format

    order = {"README.md": ["paired", "unpaired"], "docs/data.md": [known.name for known in FORMATS]}
    (block,) = blocks(DOCUMENTS[page], "json")
    rows = [json.loads(line) for line in block.strip().splitlines()]
    assert [detect_format("rows", row).name for row in rows] == order[page]


def test_the_readme_is_short() -> None:
    lines = README.splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 120


def test_the_readme_names_files_that_are_there() -> None:
    for name in re.findall(r"\]\((?!http)([^)#]+)\)", README) + re.findall(r"(?<=[ `])configs/[\w/]+\.yaml", README):
        assert (ROOT / name).exists(), name


def test_the_quickstarts_tables_are_the_stored_result() -> None:
    stored = (ROOT / "notebooks/results/quickstart/before_after.md").read_text().strip()
    assert stored in DOCUMENTS["docs/quickstart.md"]
    shown = [line for line in README.splitlines() if line.startswith(("| pass rate", "| mean log-prob"))]
    assert len(shown) == 3
    assert set(shown) <= set(stored.splitlines())
    config = yaml.safe_load((ROOT / "configs/quickstart.yaml").read_text())
    result = json.loads((ROOT / "notebooks/results/quickstart/before_after.json").read_text())
    assert result["settings"]["steps"] == config["trainer"]["limit_train_batches"]


def test_the_readmes_plan_is_that_of_the_docs() -> None:
    """Memory and hours of the two big runs, as `plan` printed them for the commands beside them."""
    plans = [block for block in blocks(DOCUMENTS["docs/plan.md"], "text") if "cuda" in block]
    planned = [
        (f"{float(re.findall(r'total +([0-9.]+)', text)[0]):.1f}", re.findall(r"time: (\S+) hours", text)[0])
        for text in plans
    ]
    shown = re.findall(r"^\| (?:one|eight) cards? of .* \| (\S+) \| (\S+) \|$", README, re.MULTILINE)
    assert shown == planned


def test_table_4_is_what_the_stored_results_give() -> None:
    runs = matrix.picked(read_results(ROOT / "notebooks/results/table4_small"))
    scores = matrix.by_prompt(runs)
    shown = matrix.texts(matrix.means({name: scores[name] for name in matrix.QUALITIES}))
    level = matrix.win_rates(runs)["at equal lengths"]
    begins = re.compile(r"\| (base|[A-Z]\S+) \| 0\.\d\d \[")
    text = DOCUMENTS["docs/reproduce.md"]
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if begins.match(line)]
    assert {line[0] for line in lines} == {"base"} | {method for method in runs if method != "Base"}
    for method, instructions, *wins, reasoning, others in lines:
        name = "Base" if method == "base" else method
        assert [instructions, reasoning, others] == shown.loc[name, ["instructions", *matrix.QUALITIES[2:]]].tolist()
        assert wins == (["", ""] if name == "Base" else [shown.loc[name, "win rate"], level[name]])


def test_every_room_has_its_page_in_the_api() -> None:
    package = ROOT / "lightning_bnf"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")} | {
        path.stem for path in package.glob("*.py") if not path.stem.startswith("__")
    }
    pages = {path.stem: path.read_text().strip() for path in (ROOT / "docs/api").glob("*.md") if path.stem != "index"}
    assert pages == {room: f"::: lightning_bnf.{room}" for room in rooms}
    index = (ROOT / "docs/api/index.md").read_text()
    assert {*re.findall(r"\]\((\w+)\.md\)", index)} == rooms


def test_the_site_is_built_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        assert not re.search(r"<(?:script|img)[^>]+src=\"https?:|<link[^>]+stylesheet[^>]+https?:", page.read_text()), (
            page
        )

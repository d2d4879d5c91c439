"""Table 4 whole at toy size: tiny models in local folders, a judge on loopback that answers by script; the commands run
in this process."""

import json
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from lm_eval.models.huggingface import HFLM
from support.benchmark_rows import ROWS
from support.endpoint import Endpoint, listening
from support.judges import sent

from lightning_bnf.cli.main import main
from lightning_bnf.generation.server import client
from lightning_bnf.judging.server_judge import JudgeServer
from lightning_bnf.reproduction import table4_run
from lightning_bnf.reproduction.table4 import Answering, Judged, Planned, Reasoning, Row, Table4
from lightning_bnf.reproduction.table4_run import run_table4
from lightning_bnf.runtime.refusal import Refusal

pytestmark = pytest.mark.slow

QUESTIONS = [f"Question {i}: name a colour." for i in range(4)]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    client.cache_clear()
    with listening() as found:
        yield found


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The words of every command; they run in this process, without the seconds that each takes to begin."""
    found: list[list[str]] = []

    def command(words: list[str], log_file: Path, environment: Any, name: str) -> None:
        found.append(list(words))
        with log_file.open("w") as log, redirect_stdout(log):
            try:
                main(list(words))
            except SystemExit as stop:
                if stop.code:
                    raise Refusal(f"{name}: the run ended with status {stop.code}") from None

    monkeypatch.setattr(table4_run, "run_command", command)
    monkeypatch.setattr(HFLM, "generate_until", lambda self, asked: ["Answer: ['a']"] * len(asked))  # else 2,048 tokens
    return found


def verdicts(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """WildBench's judge says 6. Arena-Hard's prefers the model, not the baseline, but for question 3."""
    prompt = body["messages"][-1]["content"]
    if "response_format" in body:
        return sent('{"score": "6"}', model="judge-1")
    baseline_is_a = "Answer A:\nthe baseline" in prompt
    return sent("[[A>B]]" if baseline_is_a == ("Question 3" in prompt) else "[[B>A]]")


@pytest.fixture
def table(tmp_path: Path, tiny_folder: str, endpoint: Endpoint, write_pairs: Any, monkeypatch: Any) -> Table4:
    monkeypatch.setenv("LIGHTNING_BNF_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    endpoint.script = verdicts
    arena = [{"question_id": f"q{i}", "turns": [{"content": text}]} for i, text in enumerate(QUESTIONS)]
    wild = [
        {"session_id": f"s{i}", "conversation_input": [{"role": "user", "content": text}], "primary_tag": "Math"}
        for i, text in enumerate(QUESTIONS[:2])
    ]
    said = [
        {"question_id": f"q{i}", "model_id": "gpt-4-0314", "choices": [{"turns": [{"content": "the baseline"}]}]}
        for i in range(4)
    ]
    for name, rows in (("arena", arena), ("wild", wild), ("baseline", said), ("crux", ROWS["bnf_crux_output"])):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    policy = {"class_path": "lightning_bnf.policies.LoRAPolicy", "init_args": {"source": tiny_folder, "r": 2}}
    fit = {
        "model": {"policy": policy, "loss": {"class_path": "lightning_bnf.losses.BNF"}, "reference": "cache"},
        "data": {"train": write_pairs(), "examples_per_step": 5},
        "trainer": {"accelerator": "cpu", "max_steps": 1, "logger": False, "log_every_n_steps": 1},
    }
    Path("fit.yaml").write_text(yaml.safe_dump(fit))
    server = JudgeServer(endpoint.url, "judge", at_once=1, tries=1, price_in=1.0, price_out=2.0)
    return Table4(
        {"Gemma-2-9b-it": {"Base": Row(tiny_folder), "BNF": Row(configs=["fit.yaml"])}},
        arena_hard=Judged("arena.jsonl", 500, "own", "baseline.jsonl", server, read_tokens=1000, written_tokens=100),
        wildbench=Judged("wild.jsonl", 1024, "own", server=replace(server, price_in=None)),
        zeroeval=Reasoning(["bnf_crux_output"], {"bnf_crux_output": "crux.jsonl"}, 1),
        answering=Answering(None, 4, "float32"),
        planned=Planned(rows=1000, tokens_per_row=100),
    )


def numbers(output: Path) -> dict[tuple[str, str], float]:
    held = pd.read_csv(output / "table4.csv")
    return {(line.method, line.metric): line.value for line in held.itertuples()}


def test_the_whole_matrix(
    table: Table4, tmp_path: Path, ran: list[list[str]], endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    """First without its judges, then with them, of whom one request fails, then that one again, then nothing at all."""
    output = tmp_path / "out"
    run_table4(table, output, dry_run=True)
    shown = capsys.readouterr().out
    assert not output.exists()
    assert "Gemma-2-9b-it/BNF/fit: to do; " in shown
    assert re.search(r"[\d.e-]+ GPU-hours planned on 8 x a100-80 \(fits: .*\); the paper reports 56\n", shown), shown
    assert (
        "8 calls to judge, 1,000 tokens read and 100 written by each (assumed): some 0.01; the paper reports 0.2"
        in shown
    )
    assert "2 calls to judge, 2,000 tokens read and 500 written by each (assumed): no prices are given" in shown
    assert "12 steps, 0 done, 0 skipped; nothing was run" in shown
    assert "20 calls of judges, 0.02 for those with prices\nnot counted: the cost of wildbench: no prices" in shown
    assert [words[0] for words in ran] == ["plan"]

    ran.clear()
    run_table4(replace(table, skip=["*/judge_*"]), output, False)
    assert [words[0] for words in ran] == [
        *("generate", "generate", "evaluate"),
        "cache",
        "fit",
        *("generate",) * 2,
        "evaluate",
    ]
    assert numbers(output) == {("Base", "crux"): 100, ("BNF", "crux"): 100}
    assert endpoint.seen == []

    ran.clear()
    endpoint.replies = [(500, {})]
    run_table4(table, output, False)
    assert [words[0] for words in ran] == ["judge"] * 4
    asked = len(endpoint.seen)
    assert asked == 2 * (8 + 2)
    assert "Gemma-2-9b-it/Base/judge_arena_hard_v0.1: 1 games without a reply" in capsys.readouterr().out

    ran.clear()
    run_table4(table, output, False)
    assert ([words[0] for words in ran], len(endpoint.seen)) == (["judge"], asked + 1)
    found = numbers(output)
    assert found["Base", "arenahard_wr"] == found["BNF", "arenahard_wr"] == pytest.approx(75)
    assert found["Base", "wildbench_score"] == 20
    assert found["Base", "wildbench_elo"] == pytest.approx(1000)
    text = (output / "table4.md").read_text()
    assert "| BNF, printed" in text
    assert "1186 (1)" in text
    assert "- Arena-Hard WR (%): judged by judge, prompt" in text
    assert "- Wild-Bench Elo: judged by judge-1, prompt" in text

    ran.clear()
    run_table4(table, output, False)
    with pytest.raises(
        Refusal, match=r"answers_arena_hard_v0\.1\.json and what comes after it taken away, got a stage"
    ):
        run_table4(replace(table, answering=Answering(None, 5, "float32")), output, False)
    assert (ran, len(endpoint.seen), (output / "table4.md").read_text()) == ([], asked + 1, text)


def test_what_is_not_there_is_refused_before_anything_runs(table: Table4, tmp_path: Path, ran: list[list[str]]) -> None:
    assert table.arena_hard is not None
    for changed, sentence in (
        ({"baseline": None}, "baseline must be the answers of gpt-4-0314 for arena_hard_v0.1, got None"),
        ({"prompt": "nowhere"}, "prompt must be own, a YAML file, or a checkout of the benchmark's repository"),
        ({"questions": "nowhere.jsonl"}, r"nowhere\.jsonl: there is no such file"),
        ({"server": None}, "server, scorer, source: one of them must be given, got none"),
        ({"vocabulary": Path("nowhere")}, "vocabulary must be the file o200k_base.tiktoken, got nowhere"),
    ):
        with pytest.raises(Refusal, match=sentence):
            run_table4(replace(table, arena_hard=replace(table.arena_hard, **changed)), tmp_path / "out", False)
    with pytest.raises(
        Refusal, match=r"skip must be patterns of steps such as Gemma-2-9b-it/Base/answers_arena_hard_v0.1"
    ):
        run_table4(replace(table, skip=["*/sleep"]), tmp_path / "out", False)
    assert (ran, (tmp_path / "out").exists()) == ([], False)


def test_what_a_skipped_step_would_have_made_is_waited_for(
    table: Table4, tmp_path: Path, ran: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    table = replace(table, arena_hard=None, wildbench=None, skip=["*/fit", "*/cache", "*/Base/*"])
    run_table4(table, tmp_path / "out", False)
    shown = capsys.readouterr().out
    assert ran == []
    assert "Gemma-2-9b-it/BNF/cache: skipped" in shown
    assert "Gemma-2-9b-it/BNF/zeroeval: left out, as Gemma-2-9b-it/BNF/fit is" in shown
    assert re.search(r"\| BNF, ours +\| - +\|", (tmp_path / "out/table4.md").read_text())

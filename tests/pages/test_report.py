"""The page of a run, as text: what it says, what it leaves out, and that data never become markup."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.page_runs import ROWS, row, write_completions, write_run

from lightning_bnf.cli.main import main
from lightning_bnf.pages.report import page, write_report
from lightning_bnf.pages.run_folder import read_run
from lightning_bnf.pages.scores import write_about

HOSTILE = "</script><img src=x onerror=alert(1)>"


def visible_text(html: str) -> str:
    html = re.sub(r"<(script|style).*?</\1>", "", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_what_the_page_says(tmp_path: Path) -> None:
    text = visible_text(write_report(write_run(tmp_path / "run")).read_text())
    for words in (
        "BNF on some/model",
        "Run folder run: 2 steps.",
        "This file holds data: 2 rows of the data and 1 prompt with answers.",
        "--report.rows 0 leaves them out",
        "Margin gained +0.92 nats a token",  # log(5/2)
        "Rows that gained 100% of 2 have a larger margin",
        "Rejected moved \u22120.92",
        "BNF&#39;s weight, rejected 0.25",
        "training rows 8",
        "validation rows 2",
        "completion tokens trained 22",
        "time 1.7 min",
        "most memory 1.5 GB",
        "2 of 2 validation rows, evenly apart.",
        "Hello there, dog",
        "\u2717 fails",
        "\u2713 passes",
        "trainer.max_epochs 1 an epoch is what most take",
        "data.train mine.jsonl",
        "scoring rows for it had taken 2.0 s, 2.0 % of the run, and writing it 1.0 s, 1.0 %",
    ):
        assert words in text, words


def test_curves_of_what_was_measured(tmp_path: Path) -> None:
    html = write_report(write_run(tmp_path / "run")).read_text()
    titles = ("Margin", "Accuracy", "Shift from the reference", "BNF's loss", "Throughput", "Memory")
    assert [title for title in titles if f">{title}</text>" in html] == list(titles)


def test_a_page_fetches_nothing_and_runs_one_script(tmp_path: Path) -> None:
    html = write_report(write_run(tmp_path / "run")).read_text()
    assert not re.search(r"""(src|href)=["'](?!data:,|#)|url\((?!#)|@import""", html)
    assert "default-src 'none'" in html
    assert re.search(r"script-src 'sha256-[\w+/=]{44}'", html.replace("&#39;", "'"))


def test_data_never_become_markup(tmp_path: Path) -> None:
    rows = [row("odd", HOSTILE, [HOSTILE], ["\u2028", "\ud800"]), *ROWS]
    folder = write_run(tmp_path / HOSTILE.replace("/", "_"), rows, loss="BNF")
    write_completions(folder, [(HOSTILE, HOSTILE, False, f"{HOSTILE} \x00", True)])
    (folder / "data_report.txt").write_text(HOSTILE)
    (folder / "config.yaml").write_text(f"{HOSTILE!r}: {HOSTILE!r}\n")
    html = write_report(folder).read_text(encoding="utf-8")
    assert "<img" not in html
    assert html.count("</script>") == 2
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert "\x00" not in html


def test_no_rows_leave_no_data(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    main(["report", str(folder), "--rows", "0"])
    html = (folder / "report.html").read_text()
    for word in ("3 + 4", "Eight", "Hello", "mine.jsonl: 8 rows", "This file holds data"):
        assert word not in html, word
    assert "Margin gained" not in html
    assert "BNF on some/model" in html


def test_a_run_under_way_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    write_about(folder, read_run(folder).about | {"step": 1, "steps": 4})
    text = visible_text(page(read_run(folder)))
    assert "under way, step 1 of 4 when this page was written" in text
    assert "optimizer steps 1 of 4" in text


def test_another_loss_says_whose_weight_is_shown(tmp_path: Path) -> None:
    text = visible_text(page(read_run(write_run(tmp_path / "run", loss="DPO"))))
    assert "This run minimised DPO; the weight is what BNF&#39;s would be." in text


def test_without_the_start_there_are_probabilities_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "report/start.json").unlink()
    text = visible_text(page(read_run(folder)))
    assert "not scored, so there are probabilities alone" in text
    assert "Margin gained" not in text


def test_the_command_refuses_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path)])
    assert stop.value.code == 2
    assert "error: run must be a run folder, got" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_no_torch_is_needed(tmp_path: Path) -> None:
    code = (
        "import sys; from lightning_bnf.pages.report import write_report; "
        f"write_report({str(write_run(tmp_path / 'run'))!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

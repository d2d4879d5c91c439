"""The token view in a notebook."""

import html
import re
from pathlib import Path

import pytest
from support.page_runs import write_run

from lightning_bnf.pages.token_view import token_view
from lightning_bnf.runtime.refusal import Refusal


def test_a_frame_holds_a_whole_page(tmp_path: Path) -> None:
    view = token_view(write_run(tmp_path / "run"), rows=1, height=500)
    shown = view._repr_html_()
    rest = 'sandbox="allow-scripts" style="width: 100%; height: 500px; border: 0" title="token view"></iframe>'
    found = re.fullmatch(rf'<iframe srcdoc="([^"]*)" {rest}', shown)
    assert found is not None
    assert html.unescape(found[1]) == view.page
    assert '"What is 3 + 4?"' in view.page
    assert "Name a colour." not in view.page


def test_a_run_that_scored_nothing_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    for path in (folder / "report").glob("*.json"):
        path.unlink()
    with pytest.raises(Refusal, match="run must be a run that has scored rows, got"):
        token_view(folder)

"""What the bench measured: as a file that a run goes on from, and as tables."""

import json
import statistics
from pathlib import Path
from typing import Any

from lightning_bnf.costs.bench.workers import Variant
from lightning_bnf.costs.plan.gpus import gpu_of_device
from lightning_bnf.results.markdown import markdown_table
from lightning_bnf.runtime.files import replacing
from lightning_bnf.runtime.refusal import Refusal

GB = 1e9


class Results:
    """The measurements of a run of the bench, and of earlier ones that it goes on from."""

    def __init__(self, about: dict[str, Any], json_file: Path | None, markdown_file: Path | None):
        """`about`: machine, versions, commit and settings. Raises `Refusal` where the file holds something else than
        measurements of these: what is there is not written over."""
        self.about, self.json_file, self.markdown_file = about, json_file, markdown_file
        self.done: list[Variant] = []
        self._held: dict[tuple[str, str, str], dict[str, Any]] = {}
        if json_file is not None and json_file.exists():
            for row in _rows_of(json_file, about):
                self._held[row["suite"], row["case"], row["variant"]] = row

    @property
    def measured(self) -> list[Variant]:
        """Those without an error."""
        return [variant for variant in self.done if not variant.error]

    def hold(self, group: list[Variant]) -> bool:
        """Whether all of a group was measured before; then they have it."""
        rows = [self._held.get((one.suite, one.case, one.name)) for one in group]
        if any(row is None or "error" in row for row in rows):
            return False
        for variant, row in zip(group, rows):
            assert row is not None
            variant.take(row)
        return True

    def add(self, group: list[Variant]) -> None:
        """Keep a group's measurements, and write all there are: a long run may end early."""
        self.done += group
        for variant in group:
            self._held[variant.suite, variant.case, variant.name] = variant.row()
        if self.json_file is not None:
            with replacing(self.json_file) as unfinished:
                unfinished.write_text(json.dumps(self.about | {"rows": [*self._held.values()]}, indent=1) + "\n")
        if self.markdown_file is not None:
            with replacing(self.markdown_file) as unfinished:
                unfinished.write_text(markdown(self.about, [*self._held.values()]))


def _rows_of(file: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        others = [name for name in about if name != "date" and held.get(name) != about[name]]
        rows: list[dict[str, Any]] = held["rows"]
    except (ValueError, AttributeError, KeyError, TypeError):
        others, rows = ["contents"], []
    if others:
        raise Refusal(
            "json_file must be a new file, or measurements of this machine, versions, commit and settings, got "
            f"{file}, of which {', '.join(others)} are others"
        )
    return rows


def table(group: list[Variant]) -> str:
    """Medians in seconds and in units of the group's first, and the peak of memory."""
    width = max(len(variant.name) for variant in group)
    lines = [f"\n{group[0].suite}: {group[0].case}", f"  {'':{width}s}  median s   ratio   peak GB"]
    first = next((statistics.median(variant.seconds) for variant in group if variant.seconds), 1.0)
    for variant in group:
        if variant.error:
            lines.append(f"  {variant.name:{width}s}  failed: {reason(variant.error)}")
            continue
        median = statistics.median(variant.seconds)
        peak = variant.peak_bytes / GB
        lines.append(f"  {variant.name:{width}s}  {median:8.3f}  {median / first:6.2f}  {peak:8.2f}")
    return "\n".join(lines)


def markdown(about: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """All measurements in a table, under what they were made on."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    rehearsed = " A rehearsal with toys on a CPU: the numbers mean nothing." if about["settings"]["rehearse"] else ""
    heading = f"{about['machine']}, {about['date']}, commit {about['commit']}; {versions}. Medians.{rehearsed}"
    lines = []
    for row in rows:
        if "error" in row:
            told = ["failed", "", reason(row["error"])]
        else:
            numbers = "; ".join(f"{name} {value}" for name, value in figures(row, about["machine"]).items())
            told = [f"{statistics.median(row['seconds']):.4g}", f"{row['peak_bytes'] / GB:.2f}", numbers]
        lines.append([row["case"], row["variant"], *told])
    return f"{heading}\n\n{markdown_table(['what', 'variant', 'seconds', 'peak GB', 'more'], *lines)}\n"


def reason(error: str) -> str:
    """The last line of a traceback, which says what it came to."""
    return error.strip().splitlines()[-1]


def figures(row: dict[str, Any], machine: str = "") -> dict[str, str]:
    """What a variant told beside its seconds, as medians with their units; rates where it told tokens or operations."""
    known = ("suite", "case", "variant", "seconds", "peak_bytes", "resting_bytes", "rounds", "places")
    told = {
        name: statistics.median(values)
        for name, values in row.items()
        if name not in known and isinstance(values, list) and all(isinstance(value, int | float) for value in values)
    }
    found, seconds = {}, statistics.median(row["seconds"])
    for name, value in told.items():
        if name == "tokens":
            found["tokens/s"] = f"{value / seconds:,.0f}"
        elif name == "flops":
            found["TFLOP/s"] = f"{value / seconds / 1e12:.3g}"
            if gpu := gpu_of_device(machine):
                found["of the peak"] = f"{value / seconds / 1e12 / gpu.peak:.0%}"
        elif name.endswith("_bytes"):
            found[f"{name.removesuffix('_bytes')} GB"] = f"{value / GB:.2f}"
        else:
            found[name.replace("_", " ")] = f"{value:.4g}"
    return found

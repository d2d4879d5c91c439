"""The verb `reproduce`: a matrix of runs, or Table 4 at the paper's size."""

from pathlib import Path

from lightning_bnf.reproduction.runs import Method, run_matrix
from lightning_bnf.reproduction.stages import Expected, Stage
from lightning_bnf.reproduction.table4 import Table4
from lightning_bnf.reproduction.table4_run import run_table4
from lightning_bnf.runtime.arguments import PositiveFloat, PositiveInt, checked
from lightning_bnf.runtime.refusal import Refusal


@checked
def reproduce(
    output: Path,
    base: Path | None = None,
    methods: dict[str, Method] | None = None,
    seeds: list[int] | None = None,
    work: Path = Path("runs/reproduce"),
    minutes_per_run: PositiveFloat = 5.0,
    workers: PositiveInt = 1,
    stages: dict[str, Stage] | None = None,
    expected: dict[str, Expected] | None = None,
    table4: Table4 | None = None,
    dry_run: bool = False,
) -> None:
    """Run a matrix of methods and seeds, or Table 4 at the paper's size; what is finished is skipped.

    `reproduce TABLE --scale SCALE` is short for `reproduce --config configs/reproduce/TABLE_SCALE.yaml`.

    Args:
        output: folder for the results; what was made with other settings or data is refused.
        base: config of `fit` that all runs share.
        methods: name -> what differs from it: settings of all its runs, and a grid to pick from.
        seeds: seeds of order and adapters; every method gets its first one before any gets its second, and a grid is
            picked from with the first.
        work: folder for the run folders.
        minutes_per_run: what a run takes, until one has been timed.
        workers: runs at a time; the machine's cores are shared out among them.
        stages: name -> runs that are a whole result together, done in this order instead of `seeds`: every point of the
            methods' grids with every seed.
        expected: measure -> its rows and variances, of which is printed which differences the seeds can see.
        table4: models and benchmarks instead of a matrix: fit, answer, evaluate, judge, and the table beside the
            printed one.
        dry_run: whether to print what all of it takes, and run nothing.
    """
    if table4 is not None:
        if base is not None or methods is not None or seeds is not None or stages is not None:
            raise Refusal("table4 must be without base, methods, seeds and stages, got one of them too")
        run_table4(table4, output, dry_run)
        return
    if base is None or methods is None:
        raise Refusal(f"base and methods must be given, or table4, got {'no base' if base is None else 'no methods'}")
    run_matrix(base, methods, output, seeds, work, minutes_per_run, workers, stages, expected, dry_run)

"""The verb `evaluate`: benchmarks of EleutherAI's lm-eval on any model that this package exports."""

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.reading.options import DATE
from lightning_bnf.datamodules.tokens.template_code import Clock
from lightning_bnf.evaluation.benchmarks.lm_eval_scores import Score, latest_results, read_scores, scores_table
from lightning_bnf.evaluation.benchmarks.suites import (
    TASKS,
    SuiteError,
    SuiteName,
    SuiteTask,
    as_lm_eval_takes_it,
    chosen,
)
from lightning_bnf.policies.base import Dtype
from lightning_bnf.policies.exported import exported
from lightning_bnf.policies.sources import placed
from lightning_bnf.runtime.arguments import PositiveInt, checked
from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.fingerprints import tokenizer_fingerprints, weights_fingerprint
from lightning_bnf.runtime.ownership import check_claim, claim

INSTALL = 'pip install -c constraints.txt -e ".[eval]"'


@checked
def evaluate(
    suite: SuiteName,
    source: str,
    output: Path,
    tasks: list[str] | None = None,
    files: dict[str, str] | None = None,
    limit: PositiveInt | None = None,
    batch_size: PositiveInt = 16,
    dtype: Dtype = "float32",
    seed: int = 1,
) -> None:
    """Run benchmarks of lm-eval on a model: GSM8K, MATH level 5, MMLU-redux and CRUX, or three that need no network.

    Writes lm-eval's own results_*.json and samples_*.jsonl, and scores.json and scores.md made from them.

    Args:
        suite: zeroeval (GSM8K, MATH level 5, MMLU-redux, CRUX), or local (ASDiv, CommonsenseQA, OpenBookQA).
        source: model to measure: hub id, folder (also an exported adapter's), GGUF file or bundled model.
        output: folder for the results: new, empty, or of this command.
        tasks: only these tasks of the suite, by lm-eval's names; null: all.
        files: task -> JSONL file with its rows, instead of the hub's.
        limit: rows of each task; null: all.
        batch_size: prompts that are run together.
        dtype: type of the model's weights; a GPU is used where there is one.
        seed: of lm-eval's random choices and of sampling.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise SuiteError(f"suite {suite}: it needs lm-eval, which is not installed; install it with: {INSTALL}")
    wanted = chosen(suite, tasks)
    for name in files or {}:
        if name not in {one.task for one in wanted}:
            raise SuiteError(f"files must be of {', '.join(one.task for one in wanted)}, got {name}")
    check_claim("output", Path(output), "evaluate")
    specs = [as_lm_eval_takes_it(one, files or {}) for one in wanted]
    policy = exported(source, dtype)
    policy.load()
    model = placed(policy.loaded)
    results = run_lm_eval(model, policy.tokenizer, specs, any(one.public for one in wanted), limit, batch_size, seed)
    results["lightning_bnf"] = {
        "source": source,
        "dtype": dtype,
        "weights": weights_fingerprint(model),
        **tokenizer_fingerprints(policy.tokenizer),
    }
    print(save(results, wanted, output))


def run_lm_eval(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    specs: Sequence[str | dict[str, Any]],
    public: bool,
    limit: int | None,
    batch_size: int,
    seed: int,
) -> dict[str, Any]:
    """lm-eval's results, samples included, of a live model under its own chat template.

    `public` makes lm-eval's own task definitions known too. Prompts become ids as they do in training; raises
    `SuiteError` where they would not.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model.eval()
    # The template writes its own BOS: lm-eval must add none, else there are two.
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, add_bos_token=False)
    question = [{"role": "user", "content": "What is 1 + 1?"}]
    with Clock(DATE).pinned():  # as in training: templates may write the date
        rendered = str(tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True))
        check_prompts(lm, tokenizer, {rendered})  # before hours of generation; all the others after it
        results = simple_evaluate(
            model=lm,
            tasks=list(specs),
            task_manager=TaskManager(include_path=str(TASKS), include_defaults=public),
            limit=limit,
            apply_chat_template=True,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
            log_samples=True,
        )
    assert results is not None
    prompts = {str(ask[0]) for rows in results["samples"].values() for row in rows for ask in row["arguments"]}
    check_prompts(lm, tokenizer, prompts)
    return dict(results)


def check_prompts(lm: Any, tokenizer: PreTrainedTokenizerBase, prompts: set[str]) -> None:
    """Refuse (`SuiteError`) a harness whose ids of a rendered prompt are not those of training."""
    for prompt in sorted(prompts):
        ours = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        if lm.tok_encode(prompt) != ours:
            raise SuiteError(
                "lm-eval's ids of a prompt must be training's, without a second BOS token, got others of "
                f"{prompt[:60]!r}"
            )


def save(results: dict[str, Any], tasks: Sequence[SuiteTask], output: Path) -> str:
    """Write lm-eval's files and, read back from them, the scores; returns their table."""
    from lm_eval.loggers import EvaluationTracker

    claim("output", output, "evaluate")
    samples = results.pop("samples")
    tracker = EvaluationTracker(output_path=str(output / "results.json"))
    tracker.save_results_aggregated(results, samples)
    for task, rows in samples.items():
        tracker.save_results_samples(task, rows)
    scores: list[Score] = read_scores(latest_results(output), tasks)
    write_text(output / "scores.json", json.dumps([asdict(one) for one in scores], indent=1) + "\n")
    table = scores_table(scores)
    write_text(output / "scores.md", table)
    return table

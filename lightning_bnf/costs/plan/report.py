"""The plan as text."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_bnf.costs.plan.advice import Advice
from lightning_bnf.costs.plan.duration import Duration, Rate
from lightning_bnf.costs.plan.estimate import Estimate, Part
from lightning_bnf.costs.plan.run import Assessment
from lightning_bnf.runtime.progress import lasting

GB = 1e9


@dataclass(frozen=True)
class Verdict:
    """The answer: bytes needed of each device and bytes there are, how long it lasts, rows trained on, the rate that
    the seconds were reckoned with, and the machine in words; None and empty where it is not known."""

    needed: float
    memory: float | None
    lasts: Duration | None
    rows: int | None
    rate: Rate | None
    machine: str = ""

    @property
    def seconds(self) -> float | None:
        """Of the run."""
        return None if self.lasts is None else self.lasts.seconds

    @property
    def fits(self) -> bool:
        """Whether it does; what is not known is no obstacle."""
        return self.memory is None or self.needed <= self.memory

    def line(self) -> str:
        """All of it in one line."""
        on = f" on {self.machine}" if self.machine else ""
        needs = f"{self.needed / GB:.1f}"
        if self.memory is None:
            memory = f"needs {needs} GB a device"
        elif self.fits:
            memory = f"fits: {needs} of {self.memory / GB:g} GB{on}"
        else:
            memory = f"does not fit: {needs} GB are needed and {self.memory / GB:g} are there{on}"
        if self.memory is not None and self.machine == "this machine":
            memory = memory.replace(f"{self.memory / GB:g}", f"{self.memory / GB:.1f}")
        if self.seconds is None or self.rate is None:
            return f"{memory}; hours unknown{'' if self.rate else ' without --gpu or --flops'}"
        return f"{memory}, about {lasting(self.seconds)} for {self.rows:,} rows ({self.rate.origin})"

    def time(self) -> str:
        """How the time is reckoned, and what it goes into."""
        if self.lasts is None:
            return "time: unknown, as rows or tokens are"
        work = f"{self.lasts.flops / 1e15:.3g} PFLOP"
        if self.seconds is None or self.rate is None:
            return f"time: unknown for {work}; give --gpu NAME or --flops TFLOP/s"
        line = f"time: {self.seconds / 3600:.2g} hours for {work} ({self.rate.origin})"
        return "\n".join([line, *([f"of it: {shares(self.lasts)}"] if self.lasts.parts else [])])


WORDS = {
    "products": "matrix products",
    "attention": "attention",
    "head": "head",
    "memory": "norms, casts and other reading and writing",
    "optimizer": "optimizer",
    "collectives": "waiting for other devices",
}


def shares(lasts: Duration) -> str:
    """What the time goes into, in words; what is under half a percent is left out."""
    total = sum(lasts.parts.values())
    found = {words: 100 * lasts.parts.get(kind, 0.0) / total for kind, words in WORDS.items()}
    return ", ".join(f"{words} {share:.0f} %" for words, share in found.items() if share >= 0.5)


def memory_table(estimate: Estimate, beside: Sequence[Part]) -> str:
    """What takes how much of a device, in GB, at the moment at which most is taken; `beside` are no tensors."""
    extra = [part for part in beside if part.bytes]
    width = max(len(part.name) for part in [*estimate.parts, *extra]) + 2
    lines = [f"  {part.name:{width}s}{part.bytes / GB:9.3f}" for part in estimate.parts]
    lines.append(f"  {'tensors in all':{width}s}{estimate.total / GB:9.3f}   (most in the {estimate.phase})")
    lines += [f"  {part.name:{width}s}{part.bytes / GB:9.3f}" for part in extra]
    total = estimate.total + sum(part.bytes for part in extra)
    lines.append(f"  {'total':{width}s}{total / GB:9.3f}")
    return "\n".join(lines)


def heading(found: Assessment) -> str:
    """What is planned: model, micro-batch, devices."""
    run, work, state = found.run, found.workload, found.cost.model_state
    where = f"{run.devices.count} x {run.devices.kind}" + (
        f", {run.devices.parallelism}" if run.devices.count > 1 else ""
    )
    batch = work.batch.inputs["input_ids"]
    return (
        f"{type(run.policy).__name__} of {run.policy.source}: {state.parameters:,} parameters, {state.trained:,} "
        f"trained; reference: {run.reference}\n"
        f"{where}, precision {run.precision}; the largest micro-batch has {len(batch)} x {batch.shape[1]} tokens "
        f"({work.layout}, data.max_tokens {run.max_tokens}; from {work.assumed})"
    )


def steps_line(found: Assessment, steps: int | None) -> str:
    """Steps and tokens of the run, as far as they are known."""
    work = found.workload
    if work.rows is None:
        return "steps: unknown, as data.train is not a local file; give --rows and --tokens_per_row"
    size = found.run.data.step_size_for(work.rows)
    line = f"steps: {steps} of {min(size, work.rows)} rows ({work.rows:,} rows in an epoch)"
    if work.tokens is None:
        return line + "; tokens a step: unknown, give --tokens_per_row"
    return line + f"; tokens a step: {round(work.tokens / -(-work.rows // size)):,}, padding included"


def disk_line(found: Assessment) -> str:
    """What a run leaves on disk: of a checkpoint what is trained and the optimizer's state, of the exported policy
    adapters in float32, or all weights in bfloat16, which the export keeps to where that loses little."""
    state = found.cost.model_state
    policy = state.adapters or 2 * state.trained
    checkpoint = state.gradients + state.state
    wide = "" if state.adapters else f" in bfloat16, or {2 * policy / GB:.3g} in float32 where rounding loses too much"
    line = f"on disk: {checkpoint / GB:.3g} GB a checkpoint, two are kept; {policy / GB:.3g} GB in policy/ at the end"
    return line + wide


def advice_list(some: Sequence[Advice], limit: float | None) -> str:
    """What would take less, each with its total."""
    lines = [
        f"  {one.total / GB:8.3f} GB  {one.what}"
        + (" - fits" if limit and one.total <= limit else "")
        + f"\n{'':15}{one.flags}"
        for one in some
    ]
    return "\n".join(["What would take less (GB of tensors on each device):", *lines])

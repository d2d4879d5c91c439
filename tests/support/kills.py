"""Commands that are killed (kill -9) at a chosen write of theirs, in processes that have imported everything before.

What counts as a write is what Python tells of files below a folder: opened to write, renamed, linked, cut, removed. The
kill comes just before it, so that every state that the folder ever has can be hit, and always the same one.
"""

import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from support import forked

KILLS = int(os.environ.get("KILLS", "2"))
CHANGES = {"os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


class Command(NamedTuple):
    """words: as they are typed; `{root}` is the folder that is watched. unit: the function, as `module:qualified.name`,
    that does a part of the work which must not be done again when it was done; None where all is one part. stand_in: a
    function of this module that takes the unit's place."""

    words: Sequence[str]
    unit: str | None = None
    stand_in: str | None = None


class Ended(NamedTuple):
    """How a process ended: whether it was killed, its writes if not, and how often the unit was begun so far."""

    killed: bool
    writes: int


class Harness:
    """Runs a command again and again in one folder, and kills it when it is told to."""

    def __init__(self, command: Command, scratch: Path, before: Path | None):
        self.command, self.scratch, self.root, self.before = command, scratch, scratch / "root", before

    def run(self, kill_at: int | None = None) -> Ended:
        process = forked.process(_run, self.command, self.scratch, kill_at)
        process.start()
        process.join()
        killed = process.exitcode == -signal.SIGKILL
        assert killed or process.exitcode == 0, (self.scratch / "log").read_text()[-3000:]
        assert not killed or kill_at is not None
        return Ended(killed, -1 if killed else int((self.scratch / "writes").read_text()))

    def begun(self) -> int:
        """How often the unit was begun since the last `anew`."""
        path = self.scratch / "begun"
        return path.stat().st_size if path.exists() else 0

    def anew(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        if self.before is None:
            self.root.mkdir()
        else:
            shutil.copytree(self.before, self.root)
        (self.scratch / "begun").unlink(missing_ok=True)


def killed_again_and_again(
    command: Command, scratch: Path, read: Callable[[Path], Any], before: Path | None = None
) -> None:
    """Two kills in each fresh folder, at writes all over the command, until there were KILLS; each time the command is
    then started once more, and `read` must find in the folder what it does after an uninterrupted run. Whenever it is
    called it must give that or raise FileNotFoundError. `before` is what the folder holds at first."""
    harness, draw, kills, rounds = Harness(command, scratch, before), random.Random(1), 0, 0
    harness.anew()
    whole = harness.run()
    wanted, units = read(harness.root), harness.begun()
    while kills < KILLS:
        harness.anew()
        first = 1 + int(whole.writes * ((0.5 + 0.618034 * rounds) % 1))  # evenly spread, however many there are
        second = draw.randint(1, max(1, whole.writes - first))
        rounds, deaths = rounds + 1, 0
        for at in (first, second):
            deaths += harness.run(at).killed
            with contextlib.suppress(FileNotFoundError):
                assert read(harness.root) == wanted, f"after a kill at write {at} something else is taken for whole"
        harness.run()
        assert read(harness.root) == wanted, f"killed at writes {first} and {second}"
        assert harness.begun() <= units + deaths, f"killed at writes {first} and {second}, what was done is done again"
        kills += deaths
    print(f"{kills} kills at {whole.writes} writes, {units} units of work")


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder that must be there, by name, but for those that a kill may leave unfinished, which are
    hidden and named so."""
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".unfinished." not in str(path.relative_to(folder))
    }


def _run(command: Command, scratch: Path, kill_at: int | None) -> None:
    """In the process: run the command, and be killed before the write of that number."""
    log = os.open(scratch / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    root, own, writes = str(scratch / "root"), os.getpid(), 0

    def watch(event: str, given: tuple[Any, ...]) -> None:
        nonlocal writes
        writing = event in CHANGES or (event == "open" and _writes(*given))
        if writing and os.getpid() == own and any(_below(path, root) for path in given[:2]):
            writes += 1
            if writes == kill_at:
                os.kill(own, signal.SIGKILL)

    if command.unit is not None:
        _count(command, scratch / "begun")
    from lightning_bnf.cli.main import main

    words = [word.replace("{root}", root) for word in command.words]
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.addaudithook(watch)
    main(words)
    (scratch / "writes").write_text(str(writes))


def _writes(path: Any, mode: str | None, flags: int) -> bool:
    return bool(flags & WRITING)


def _below(path: Any, root: str) -> bool:
    return isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(root)


def _count(command: Command, begun: Path) -> None:
    """Note each beginning of the command's unit as a byte of a file, which no kill takes back."""
    module, _, name = (command.unit or "").partition(":")
    *owners, last = name.split(".")
    owner = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    original = globals()[command.stand_in] if command.stand_in else getattr(owner, last)

    def counted(*arguments: Any, **named: Any) -> Any:
        with begun.open("ab") as file:
            file.write(b".")
        return original(*arguments, **named)

    setattr(owner, last, counted)


def trained(base: Path, run: Any, folder: Path, threads: int | None) -> None:
    """Stands in for a fit of `reproduce`: what it reads of a run folder, without the fit."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed_everything": run.seed, "data": {"seed": run.seed}}))
    (folder / "fingerprints.json").write_text(json.dumps({"model": "0123"}))
    (folder / "data_report.txt").write_text("[train] 5 rows\n")
    greedy = [{"decoding": "greedy", "groups": ["trained"], "passed": "setting2" in run.name}]
    (folder / "scores.json").write_text(json.dumps({"validation": greedy}))


def judged(server: Any, messages: Any, *how: Any) -> Any:
    """Stands in for a judge's server; about question 3 it has to be asked once more."""
    from lightning_bnf.generation.server import Reply

    said = "prose" if len(messages) == 2 and "Question 3" in messages[1]["content"] else "[[A>B]]"
    return Reply(said, True, 10, 100, "judge", None)


def staged(words: Sequence[str], log_file: Path, environment: Any, name: str) -> None:
    """Stands in for a stage of `rounds`: the files that later stages read; two pairs, none of the family `none`."""
    given = dict(zip(words[1::2], words[2::2]))
    if words[0] == "prepare":
        settings = yaml.safe_load(Path(given["--config"]).read_text())
        folder, part = Path(settings["output"]), settings["part"]
        folder.mkdir(parents=True, exist_ok=True)
        told = [] if settings["families"] == ["none"] else [f"{part} + {i}?" for i in range(2)]
        answers = {"chosen": _said("assistant", "1"), "rejected": _said("assistant", "2")}
        pairs = [{"prompt": _said("user", one), **answers} for one in told]
        (folder / "train_pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
        (folder / "test_prompts.jsonl").write_text(json.dumps({"prompt": _said("user", "9 + 9?")}) + "\n")
    if words[0] == "fit":
        folder = Path(given["--trainer.default_root_dir"])
        (folder / "policy").mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text("{}")
        (folder / "policy/adapter_config.json").write_text("{}")


def stage_here(words: Sequence[str], log_file: Path, environment: Any, name: str) -> None:
    """A stage of `rounds` in this process, so that each write of its own can be the last, too."""
    from lightning_bnf.cli.main import main

    os.environ["LIGHTNING_BNF_CACHE"] = str(log_file.parents[2] / "cache")
    with log_file.open("w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        main(list(words))


def _said(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]

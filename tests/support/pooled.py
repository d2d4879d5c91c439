"""Work for processes of a pool, and a script that has some done without `if __name__ == "__main__"`."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_bnf.datamodules.reading.errors import Unfit

SCRIPT = """
import signal
from support.pooled import Telling
from lightning_bnf.runtime.pools import in_order
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's job in the background begins without
print("begun", flush=True)
print(*in_order(Telling({folder!r}, {waits}), range(4), 2), flush=True)
"""


@dataclass(frozen=True)
class Telling:
    """A number's square, by a process that leaves its id in a folder; that of 0, where it `waits`, once there is a file
    `go` in it."""

    folder: str
    waits: bool = False

    def __call__(self, number: int) -> int:
        (Path(self.folder) / f"{os.getpid()}").touch()
        while self.waits and number == 0 and not (Path(self.folder) / "go").exists():
            time.sleep(0.05)
        return number**2


def refusing(number: int) -> int:
    """Raises for 3 what is raised for a row, and so ends a process for 5."""
    if number == 3:
        raise Unfit("a rule", f"no {number}")
    if number == 5:
        os._exit(9)
    return number


def run_script(folder: Path, waits: bool = False) -> tuple[list[str], dict[str, Any]]:
    """The words that start `SCRIPT` in an interpreter, and with what: in a session of its own, from a file."""
    path = folder / "script.py"
    path.write_text(SCRIPT.format(folder=str(folder), waits=waits))
    here = Path(__file__).parents[1]
    paths = os.pathsep.join([str(here), str(here.parent)])
    return [sys.executable, str(path)], {"env": os.environ | {"PYTHONPATH": paths}, "start_new_session": True}

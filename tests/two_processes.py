"""What tests run in processes of their own: started processes import it by this name."""

import time

import torch
import torch.distributed as dist

from lightning_bnf.bench.workers import Turns, repeat
from lightning_bnf.distributed import gather


def gather_some(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    own = torch.arange(3) if rank == 0 else torch.tensor([7])
    torch.save([*gather(own), *gather(torch.zeros(0, 2) if rank == 0 else torch.ones(1, 2))], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def sleeper(turns: Turns, seconds: float, log: str) -> None:
    def run() -> None:
        with open(log, "a") as file:
            file.write(f"{seconds}\n")
        time.sleep(seconds)

    repeat(turns, run)


def fails(turns: Turns) -> None:
    turns.wait()
    raise ValueError("no luck")

"""The store in which ranks find each other's addresses, free of entries of earlier starts."""

from __future__ import annotations

import os
import secrets
import time
from datetime import timedelta

import torch.distributed as dist

_POLL_SECONDS = 0.01


def fresh_store(rank: int, world_size: int, timeout: timedelta) -> dist.Store:  # type: ignore[name-defined]
    """A store for this start of the ranks alone. Every rank calls it.

    torchrun keeps one store for its lifetime, even when it restarts failed ranks (torch 2.13: a comment in
    rendezvous.py says that each start has a new one, but dynamic_rendezvous.py keeps the first). Ranks would read the
    addresses of dead ranks and fail to connect. The restart counts of several machines' torchruns differ, so they
    cannot identify a start. Therefore rank 0 names this start and sends the name to each rank that answers.

    Raises:
        TimeoutError: a rank did not join in time.
    """
    rendezvous = dist.rendezvous("env://", rank, world_size, timeout=timeout)  # type: ignore[attr-defined]
    store = next(iter(rendezvous))[0]
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return store
    mine = secrets.token_hex(8)
    if rank == 0:
        _welcome(store, mine, world_size, time.monotonic() + timeout.total_seconds())
        start = mine
    else:
        store.set(f"joins/{rank}", mine)
        # A dead rank cannot have answered to a name that it never saw.
        start = store.get(f"welcome/{rank}/{mine}").decode()
        store.set(f"here/{start}/{rank}", "")
    return dist.PrefixStore(start, store)  # type: ignore[attr-defined]


def _welcome(store: dist.Store, start: str, world_size: int, deadline: float) -> None:  # type: ignore[name-defined]
    """Answer each rank that joins until all have confirmed: an entry may come from a dead rank."""
    missing = set(range(1, world_size))
    while missing:
        for rank in sorted(missing):
            if store.check([f"joins/{rank}"]):
                store.set(f"welcome/{rank}/{store.get(f'joins/{rank}').decode()}", start)
            if store.check([f"here/{start}/{rank}"]):
                missing.remove(rank)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(missing)} of {world_size} ranks did not join, rank {min(missing)} among them")
        if missing:
            time.sleep(_POLL_SECONDS)

"""Where ranks find each other's addresses: a store that holds nothing of ranks that were there before them."""

from __future__ import annotations

import os
import secrets
import time
from datetime import timedelta

import torch.distributed as dist

_POLL_SECONDS = 0.01


def fresh_store(rank: int, world_size: int, timeout: timedelta) -> dist.Store:  # type: ignore[name-defined]
    """A store for this start of the ranks alone; all of them call it.

    torchrun keeps one store for as long as it lives, also when it starts failed ranks again (torch 2.13: a comment in
    rendezvous.py says that each start has a new one, dynamic_rendezvous.py keeps the first). Ranks would read the
    addresses of those that are gone, and fail to connect. How often each machine's torchrun has started them does not
    tell starts apart, as their counts differ. So rank 0 gives this start a name, and tells it to those that answer.

    Raises:
        TimeoutError: some rank did not come.
    """
    rendezvous = dist.rendezvous("env://", rank, world_size, timeout=timeout)  # type: ignore[attr-defined]
    store, _, _ = next(iter(rendezvous))
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return store
    mine = secrets.token_hex(8)
    if rank == 0:
        _welcome(store, mine, world_size, time.monotonic() + timeout.total_seconds())
        start = mine
    else:
        store.set(f"joins/{rank}", mine)
        # Who is gone cannot have answered to a name that it never saw.
        start = store.get(f"welcome/{rank}/{mine}").decode()
        store.set(f"here/{start}/{rank}", "")
    return dist.PrefixStore(start, store)  # type: ignore[attr-defined]


def _welcome(store: dist.Store, start: str, world_size: int, deadline: float) -> None:  # type: ignore[name-defined]
    """Answers each rank that joins, until all have said that they were answered: what was read may be of one gone."""
    missing = set(range(1, world_size))
    while missing:
        for rank in sorted(missing):
            if store.check([f"joins/{rank}"]):
                store.set(f"welcome/{rank}/{store.get(f'joins/{rank}').decode()}", start)
            if store.check([f"here/{start}/{rank}"]):
                missing.remove(rank)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(missing)} of {world_size} ranks did not come, rank {min(missing)} among them")
        if missing:
            time.sleep(_POLL_SECONDS)

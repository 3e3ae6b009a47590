"""Ranks as threads of one process, with gloo between them."""

import threading
from datetime import timedelta

import torch.distributed as dist


def on_ranks(world, work):
    """What work(rank, group) gives on each rank, in threads that exchange tensors as processes do."""
    store, found = dist.HashStore(), [None] * world

    def run(rank):
        found[rank] = work(rank, dist.ProcessGroupGloo(store, rank, world, timedelta(seconds=20)))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert None not in found, "a rank failed, or waits for another one"
    return found

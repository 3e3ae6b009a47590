"""What `same_as.py` asks of one checkout in its own process: draws, masks, orders and packed batches, as named arrays.

`python - OUT.npz CORPUS < same_as_probe.py`. An array's name begins with the group that it is compared in: `draws`,
`masks`, `orders`, `batches`, `passes` or `stores`. Imported are names of packages only, as modules move.
"""

import hashlib
import itertools
import sys

import numpy as np
import torch

from memofast.data import Capacity, Loader, Stream, epoch, runs_by_length
from memofast.data.demo import open_corpus
from memofast.ops import SpanPolicy, TokenPolicy, philox, span_mask, token_mask

LENGTHS = [0, 1, 2, 3, 15, 16, 17, 33, 5, 63, 129, 0, 64, 36, 7, 4]  # rows by sample; no two neighbours alike
SPARE = 3  # rows past the last sample
SEEDS = [(7, 1), (2**40 + 5, 2**33 + 17)]  # run seed and update
CAPACITY = Capacity(samples=13, text=150, visual=300, speech=170)
UPDATES = 24
MICRO_BATCHES = 3
WORD_KINDS = ("whole_word", "token", "emotion_word", "whole_word_emotion")
WORDS = [TokenPolicy(kind, at_least_one=one) for kind in WORD_KINDS for one in (None, False, True)] + [
    TokenPolicy(kind, (2, 7), (7, 10), mask_id=4, random_low=5, random_high=77) for kind in WORD_KINDS
]
ROWS = [
    SpanPolicy(),
    SpanPolicy("span", (3, 20), 7, original=True),
    SpanPolicy("span", (2, 5), 4, dice=True),
    SpanPolicy("span", (1, 2), 5, dice=True, original=True),
    SpanPolicy("independent", (3, 20)),
    SpanPolicy("single_span", (3, 10)),
    SpanPolicy("single_span", (9, 10), original=True),
    SpanPolicy("mixed", length=6),
    SpanPolicy("mixed", length=5, dice=True, original=True),
]
BATCH = (
    "token_ids", "word_ids", "text_offsets", "visual_offsets", "speech_offsets", "offsets", "sample_keys", "visual",
    "speech",
)  # fmt: skip


def bits(tensor: torch.Tensor) -> np.ndarray:
    """NumPy knows no bf16."""
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def draws() -> dict[str, np.ndarray]:
    found = {f"purpose {purpose.name}": np.array(int(purpose)) for purpose in philox.Purpose}
    found |= {f"place {place.name}": np.array(philox.site(3, place)) for place in philox.Place}
    generator = torch.Generator().manual_seed(3)
    counter = torch.randint(0, 2**32, (4, 50), generator=generator)
    keys = torch.randint(-(2**62), 2**62, (50,), generator=generator)
    for seed, step in SEEDS:
        rng = torch.tensor([seed, step])
        for purpose, site in ((philox.Purpose.MASK, 5), (philox.Purpose.DROPOUT, 258)):
            key = philox.stream_key(rng, purpose, site)
            words = philox.draw(key, keys, torch.arange(50), torch.arange(50) % 7)
            named = f"seed {seed} update {step} {purpose.name}"
            found |= {
                f"{named} key": torch.stack(key).numpy(),
                f"{named} words": words.numpy(),
                f"{named} lanes": philox.lanes16(words).numpy(),
                f"{named} below 77": philox.below(words, 77).numpy(),
                f"{named} philox": philox.philox(key, tuple(counter)).numpy(),
            }
        offsets, sample_keys = samples()
        kept = philox.hidden_keep_mask(rng, 258, sample_keys, offsets, sum(LENGTHS) + SPARE, 21, 0.15)
        found[f"seed {seed} update {step} dropout"] = kept.numpy()
    return found


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    offsets = torch.tensor([0, *itertools.accumulate(LENGTHS)], dtype=torch.int32)
    return offsets, (torch.arange(len(LENGTHS)) - 3) * 0x9E3779B97F4A7C1


def sentences() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """token_ids, word_ids and lexicon classes [rows] int32: words of one to three pieces between [CLS] and [SEP]."""
    generator = torch.Generator().manual_seed(4)
    rows = sum(LENGTHS) + SPARE
    words = torch.full((rows,), -1, dtype=torch.int32)
    for end, n in zip(itertools.accumulate(LENGTHS), LENGTHS, strict=True):
        sizes = torch.randint(1, 4, (n,), generator=generator)
        if n > 2:
            words[end - n + 1 : end - 1] = torch.arange(n).repeat_interleave(sizes)[: n - 2].int()
    ids = torch.randint(5, 120, (rows,), generator=generator, dtype=torch.int32)
    lexicon = torch.randint(-20, 5, (rows,), generator=generator, dtype=torch.int32).clamp(min=-1)
    return ids, words, lexicon


def masks() -> dict[str, np.ndarray]:
    """Every policy, backend of a CPU and purpose; of all samples and of some."""
    found = {}
    offsets, keys = samples()
    ids, words, lexicon = sentences()
    some = torch.arange(len(LENGTHS)) % 3 != 1
    uses = [
        (*seed, site, purpose, selected)
        for seed, site, purpose, selected in zip(
            SEEDS, (5, 2**31 - 9), (philox.Purpose.MASK, philox.Purpose.VALIDATION_MASK), (None, some), strict=True
        )
    ]
    for (seed, step, site, purpose, selected), backend in itertools.product(uses, ("cpu", "reference")):
        options = dict(site=site, purpose=purpose, selected=selected, backend=backend)
        rng = torch.tensor([seed, step])
        for number, policy in enumerate(WORDS):
            masked = token_mask(ids, words, offsets, keys, rng, policy, emotion=lexicon, **options)
            named = f"words {number} {policy.kind} update {step} {backend}"
            found |= {f"{named} {name}": x.numpy() for name, x in masked._asdict().items()}
        for number, policy in enumerate(ROWS):
            masked = span_mask(offsets, keys, rng, policy, rows=sum(LENGTHS) + SPARE, **options)
            named = f"rows {number} {policy.kind} update {step} {backend}"
            found |= {f"{named} {name}": x.numpy() for name, x in masked._asdict().items()}
    return found


def orders(corpus) -> dict[str, np.ndarray]:
    """Which samples the first updates hold: several epochs of the smallest stream; by one rank and by one of three."""
    train, validation = corpus.split("train"), corpus.split("validation")
    found = {f"ids of {split.name}": np.array(split.ids) for split in (train, validation)}
    streams = [
        Stream(train, 2.0, "one"),
        Stream(train, 1.0, "two", eligible=np.arange(len(train)) % 3 != 1),
        Stream(validation, 0.7, "three", eligible=np.arange(len(validation)) % 9 == 4),
    ]
    for mixing, (rank, world) in itertools.product(("update", "sample"), ((0, 1), (1, MICRO_BATCHES))):
        options = dict(micro_batches=MICRO_BATCHES, rank=rank, world=world, mixing=mixing)
        loader = Loader(streams, capacity=CAPACITY, seed=2**33 + 7, **options)
        updates = iter(loader)
        for update in itertools.islice(updates, UPDATES):
            for number, micro_batch in enumerate(update.micro_batches):
                named = f"mixing {mixing} rank {rank} of {world} update {update.step} micro-batch {number}"
                found[f"{named} stream"] = np.array(micro_batch.objective)
                found[f"{named} samples"] = micro_batch.batch.sample_keys.numpy()
        updates.close()
    return found


def batches(corpus) -> dict[str, np.ndarray]:
    found = {}
    for number, batch in enumerate(itertools.islice(epoch(corpus.split("validation"), CAPACITY), 3)):
        tensors = {name: value for name in BATCH if (value := getattr(batch, name)) is not None}
        found |= {f"batch {number} {name}": bits(x) for name, x in (tensors | batch.targets).items()}
    return found


def passes() -> dict[str, np.ndarray]:
    lengths = np.random.default_rng(6).integers(1, 60, (101, 3)).astype(np.int32)
    runs = {rows: runs_by_length(lengths, rows) for rows in (50, 400)}
    return {f"{rows} rows, run {n}": run for rows, found in runs.items() for n, run in enumerate(found)}


def stores(corpus) -> dict[str, np.ndarray]:
    """A digest of each column over all records: a newer version of the corpus may have further ones."""
    found = {}
    for name, store in corpus.stores.items():
        for id in store.ids:
            for column, values in store.read(id).items():
                digest = found.setdefault(f"{name} {column}", hashlib.blake2b(digest_size=16))
                digest.update(f"{id} {values.dtype} {values.shape} ".encode() + values.tobytes())
    return {what: np.array(digest.hexdigest()) for what, digest in found.items()}


def main() -> None:
    out, corpus = sys.argv[1:]
    shared, own = open_corpus(corpus), open_corpus("demo")
    groups = {
        "draws": draws(),
        "masks": masks(),
        "orders": orders(shared),
        "batches": batches(shared),
        "passes": passes(),
        "stores": stores(own),
    }
    np.savez(out, **{f"{group}: {name}": x for group, found in groups.items() for name, x in found.items()})


if __name__ == "__main__":
    main()

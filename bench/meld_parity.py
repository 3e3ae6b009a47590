"""Is memofast's fine-tuning that of a plain transformers loop? `python bench/meld_parity.py CORPUS MODEL`.

CORPUS, MODEL: as for `meld_text.py`, whose loop is taken for 80 updates; then memofast reads its weights. Printed:
sentences whose token ids differ, the
largest difference of logits without dropout, and the mean loss under dropout of both, with its standard error over
draws: one that were too strong or too weak in a layer would move it.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from meld_text import BATCH, LONGEST, RATE, labelled, plan_of
from torch import Tensor
from transformers import AutoTokenizer, BertForSequenceClassification

from memofast.data import Split
from memofast.model import MemoBertForEmotion

UPDATES, SENTENCES = 80, 640
DRAWS = {"transformers": 8, "memofast": 24}


def other_tokens(split: Split, sentences: list[tuple[str, int]], tokenizer) -> int:
    """How many sentences have other token ids in the corpus than the tokenizer gives."""
    found = 0
    for number, (text, _) in enumerate(sentences):
        wanted = tokenizer(text, truncation=True, max_length=LONGEST)["input_ids"]
        found += split.pack(np.array([number])).token_ids.tolist() != wanted
    return found


def logits_of(net, tokenizer, sentences: list[tuple[str, int]]) -> Tensor:
    encoded = tokenizer(
        [text for text, _ in sentences], padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
    )
    return net(**encoded).logits


def tune(net, tokenizer, sentences: list[tuple[str, int]]) -> None:
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE)
    net.train()
    for first in range(0, len(sentences), BATCH):
        batch = sentences[first : first + BATCH]
        F.cross_entropy(logits_of(net, tokenizer, batch), torch.tensor([label for _, label in batch])).backward()
        optimiser.step()
        optimiser.zero_grad()


def read_by_memofast(net, tokenizer, classes: tuple[str, ...]) -> MemoBertForEmotion:
    """The same weights, those of the classifier too."""
    with TemporaryDirectory() as folder:
        net.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        model = MemoBertForEmotion.start(folder, classes, emotion_head="emocls")
    with torch.no_grad():
        for own, theirs in zip(model.emotion.parameters(), net.classifier.parameters(), strict=True):
            own.copy_(theirs)
    return model


@torch.no_grad()
def compare(net, tokenizer, model: MemoBertForEmotion, split: Split, chosen: np.ndarray, sentences) -> None:
    labels = torch.tensor([sentences[i][1] for i in chosen])
    parts = np.split(chosen, len(chosen) // BATCH)
    answers = {
        "transformers": lambda _: torch.cat(
            [logits_of(net, tokenizer, [sentences[i] for i in part]) for part in parts]
        ),
        "memofast": lambda draw: torch.cat([model(split.pack(part), rng=torch.tensor([7, draw])) for part in parts]),
    }
    net.eval(), model.eval()
    theirs, own = (answer(0) for answer in answers.values())
    print(f"logits of {len(chosen)} sentences differ by at most {float((theirs - own).abs().max()):.1e}", flush=True)
    net.train(), model.train()
    for name, answer in answers.items():
        losses = [float(F.cross_entropy(answer(draw), labels)) for draw in range(DRAWS[name])]
        error = np.std(losses, ddof=1) / len(losses) ** 0.5
        print(
            f"{name}: loss {np.mean(losses):.4f} with dropout, standard error {error:.4f} over {len(losses)} draws",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("model", type=Path, help="folder of a BERT checkpoint with its vocabulary")
    arguments = parser.parse_args()
    plan = plan_of(arguments.corpus, arguments.model, 42, 3)
    (fold,), classes = plan.folds, plan.target.classes
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    for name, split in {"train": fold.train, "validation": fold.validation, "dev": fold.test}.items():
        sentences = labelled(split, plan.target)
        print(f"{name}: {other_tokens(split, sentences, tokenizer)} of {len(sentences)} sentences have other token ids")
    torch.manual_seed(0)
    net = BertForSequenceClassification.from_pretrained(arguments.model, num_labels=len(classes))
    sentences = labelled(fold.train, plan.target)
    order = torch.randperm(len(sentences)).numpy()
    tune(net, tokenizer, [sentences[i] for i in order[: UPDATES * BATCH]])
    model = read_by_memofast(net, tokenizer, classes)
    compare(net, tokenizer, model, fold.train, order[UPDATES * BATCH :][:SENTENCES], sentences)


if __name__ == "__main__":
    main()

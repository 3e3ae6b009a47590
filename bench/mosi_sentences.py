"""A table of MOSI's sentences with polarities, split by video, from `transcripts.csv` of the bidirectional contextual
LSTM's features:

    python bench/mosi_sentences.py transcripts.csv sentences.csv
    memofast prepare sentences.csv --out CORPUS --vocab VOCAB --split-by column:split -c id=id -c text=text \
        -c value=value -c group=video

Videos in the order of their SHA-256, 60 % train, 12 % validation, the rest test; the polarity is -1 or 1.
"""

import csv
import hashlib
import sys
from pathlib import Path


def main(transcripts: Path, out: Path) -> None:
    rows = list(csv.reader(transcripts.read_text(encoding="utf-8").splitlines()))
    videos = {row[0]: row[0].rpartition("_")[0] for row in rows}
    order = sorted(set(videos.values()), key=lambda video: hashlib.sha256(video.encode()).hexdigest())
    parts = [round(share * len(order)) for share in (0.6, 0.72)]
    split = {v: "train" if n < parts[0] else "validation" if n < parts[1] else "test" for n, v in enumerate(order)}
    with out.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("id", "text", "value", "video", "split"))
        for id, text, _, polarity in rows:
            table.writerow((id, text, 2 * int(polarity) - 1, videos[id], split[videos[id]]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

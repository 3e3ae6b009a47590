"""RAVDESS speech from scratch, one actor left out at a time, beside logistic regression: `python
bench/ravdess_speech.py CORPUS --seeds 1 2 3 [key=value ...]`.

CORPUS: made by `memofast prepare RAVDESS --corpus ravdess`. Both are told on the same folds of the scheme `speaker`
(test one actor, validation the next). Logistic regression reads mean and standard deviation of each clip's speech rows,
trains on the fold's train and validation parts together, its penalty chosen by leaving one of their actors out; once on
rows as they are and once on rows from which each actor's own mean and deviation were taken (which needs to know the
actor, and his other clips, but no label). memofast trains on both parts too and keeps its last update
(ravdess_speech.yaml).
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from memofast.data import Corpus
from memofast.data.folds import read_fold, read_groups
from memofast.evaluate.results import results_of
from memofast.evaluate.results_table import print_results, write_results
from memofast.inference.split_predictions import truth_of
from memofast.objectives.label_space import LabelSpace
from memofast.train.fine_tuning_plan import make_fine_tuning_plan
from memofast.train.fine_tuning_recipe import read
from memofast.train.fine_tuning_runs import answers, fine_tune

RECIPE = Path(__file__).with_name("ravdess_speech.yaml")


def statistics(corpus: Corpus, ids: list[str]) -> np.ndarray:
    """Mean and standard deviation of each clip's rows [n, 2 x width]."""
    rows = [np.asarray(corpus.stores["speech"].read(id)["rows"], np.float64) for id in ids]
    return np.stack([np.concatenate((r.mean(0), r.std(0))) for r in rows])


def logistic_regression(corpus: Corpus, by_actor: bool) -> list[float]:
    """UA of each fold's test part."""
    actor_of = read_groups(corpus, "speaker")
    found = []
    for number in range(1, corpus.description["folds"]["speaker"]["count"] + 1):
        fold = read_fold(corpus, "speaker", number)
        ids = {"train": fold["train"].ids + fold["validation"].ids, "test": fold["test"].ids}
        x, y = {}, {}
        for part, those in ids.items():
            actors = np.array([actor_of[id] for id in those])
            x[part] = statistics(corpus, those)
            if by_actor:
                for actor in set(actors):
                    own = x[part][actors == actor]
                    x[part][actors == actor] = (own - own.mean(0)) / (own.std(0) + 1e-9)
            y[part] = np.concatenate(
                [
                    truth_of(fold[p], LabelSpace.of_corpus(corpus))
                    for p in (("train", "validation") if part == "train" else ("test",))
                ]
            )
        actors = np.array([actor_of[id] for id in ids["train"]])
        search = GridSearchCV(
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
            {"logisticregression__C": [0.001, 0.01, 0.1, 1.0]}, scoring="balanced_accuracy", cv=LeaveOneGroupOut(),
        )  # fmt: skip
        search.fit(x["train"], y["train"], groups=actors)
        found.append(recall_score(y["test"], search.predict(x["test"]), average="macro"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, required=True, help="run folder; results.md is written there")
    arguments, overrides = parser.parse_known_args()
    console = Console(highlight=False, soft_wrap=True)
    corpus = Corpus.open(arguments.corpus)
    for by_actor in (False, True):
        found = logistic_regression(corpus, by_actor)
        console.print(
            f"logistic regression{', rows normalised by actor' if by_actor else ''}: UA {np.mean(found):.3f} "
            f"(sd over actors {np.std(found, ddof=1):.3f})"
        )
    recipe = read(str(RECIPE), [f"corpus={arguments.corpus}", f"train.seeds={arguments.seeds}", *overrides])
    plan = make_fine_tuning_plan(recipe)
    fine_tune(plan, arguments.out, console)
    results = results_of([run for run in answers(plan, arguments.out) if run[3] == "test"], trivial=plan.trivial())
    print_results(results, console)
    write_results(results, arguments.out, "RAVDESS speech, one actor left out")


if __name__ == "__main__":
    main()

"""What an emotion model's outputs are, as transformers names it, and what is made of them."""

from torch import Tensor

PROBLEMS = {
    "single": "single_label_classification",
    "multi": "multi_label_classification",
    "regression": "regression",
}


def kind_of_problem(problem_type: str | None) -> str:
    """`single`, one class of several (None too); `multi`, any number of them; `regression`, a value."""
    return {name: kind for kind, name in PROBLEMS.items()}.get(problem_type, "single")


def probabilities_of(logits: Tensor, kind: str) -> Tensor:
    """Probabilities [B, classes], of sum 1 where a sample has one class; of a regression the values themselves."""
    if kind == "regression":
        return logits
    return logits.sigmoid() if kind == "multi" else logits.softmax(-1)

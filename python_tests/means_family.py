"""A second family of emotion models, as small as one can be: means of words and of faces, and a linear map. It reads no
speech."""

from pathlib import Path

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from memofast.model.family import Family
from memofast.model.problems import LearnsByAnswers
from memofast.ops.philox import rows_of
from memofast.sections import Section

NOTHING = "nothing"  # an output that is no class


class MeansConfig(PretrainedConfig):
    model_type = "means"

    def __init__(self, vocab_size: int = 110, visual_width: int = 4, hidden_size: int = 6, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size, self.visual_width, self.hidden_size = vocab_size, visual_width, hidden_size


class MeansModel(LearnsByAnswers, PreTrainedModel):
    config_class = MeansConfig
    kind, raw = "single", frozenset()

    def __init__(self, config: MeansConfig):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.faces = nn.Linear(config.visual_width, config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @property
    def classes(self):
        return tuple(name for name in self.outputs if name != NOTHING)

    @property
    def outputs(self):
        return tuple(self.config.id2label[number] for number in range(self.config.num_labels))

    @property
    def reads(self):
        return {"text": self.config.vocab_size, "visual": self.config.visual_width}

    @property
    def streams(self):
        return {}

    @property
    def longest(self):
        return {"visual": 2}

    def forward(self, batch, *, rng=None, **sources):
        hidden = _means(self.words(batch.token_ids), batch.text_offsets)
        if batch.visual is not None:
            faces = self.faces(batch.visual[:, : self.config.visual_width].float())
            hidden = hidden + _means(faces, batch.visual_offsets)
        return self.head(torch.tanh(hidden))

    @torch.no_grad()
    def probabilities(self, batch):
        return self(batch).float().softmax(-1)


def _means(rows, offsets):
    sample, _ = rows_of(offsets, len(rows))
    sums = rows.new_zeros(len(offsets) - 1, rows.shape[1]).index_add(0, sample, rows)
    return sums / offsets.diff().clamp(min=1)[:, None]


class MeansSection(Section):
    hidden_size: int = 6


def start(section, kind, classes, train, prompt=None):
    assert kind == "single" and prompt is None
    width = train.corpus.width("visual")
    config = MeansConfig(
        visual_width=width, hidden_size=section.hidden_size, id2label=dict(enumerate((*classes, NOTHING)))
    )
    return MeansModel(config).eval()


MEANS = Family(
    name="means",
    section=MeansSection,
    start=start,
    open=lambda folder: MeansModel.from_pretrained(folder).eval(),
    capturable=lambda model, precision, device: False,
)


def means_model(folder: Path, train) -> Path:
    torch.manual_seed(4)
    model = start(MeansSection(), "single", ("calm", "glad"), train)
    for weight in model.parameters():
        nn.init.normal_(weight)
    model.save_pretrained(folder)
    return folder

"""The networks there are, by kind."""

from __future__ import annotations

from typing import Annotated, Any, Union

from pydantic import Discriminator, Tag

from memofast.model.sequence.crossmodal import Crossmodal, CrossmodalOptions
from memofast.model.sequence.early_fusion import EfLstm, EfLstmOptions
from memofast.model.sequence.factorisation import Factorisation, FactorisationOptions
from memofast.model.sequence.fused_vectors import FusedVectors, FusedVectorsOptions
from memofast.model.sequence.graph_memory_fusion import GraphMemoryFusion, GraphMemoryFusionOptions
from memofast.model.sequence.mag import Mag, MagOptions
from memofast.model.sequence.memory_fusion import MemoryFusion, MemoryFusionOptions
from memofast.model.sequence.misa import Misa, MisaOptions
from memofast.model.sequence.mmim import Mmim, MmimOptions
from memofast.model.sequence.multi_task import MlfDnn, MlfDnnOptions, Mlmf, MlmfOptions, Mtfn, MtfnOptions
from memofast.model.sequence.network import Network, NetworkOptions
from memofast.model.sequence.recurrent_fusion import RecurrentFusion, RecurrentFusionOptions
from memofast.model.sequence.self_mm import SelfMm, SelfMmOptions
from memofast.model.sequence.tfr_net import TfrNet, TfrNetOptions
from memofast.model.sequence.vector_fusion import LfDnn, LfDnnOptions, Lmf, LmfOptions, Tfn, TfnOptions

NETWORKS: dict[str, tuple[type[NetworkOptions], type[Network]]] = {
    "recurrent_fusion": (RecurrentFusionOptions, RecurrentFusion),
    "fused_vectors": (FusedVectorsOptions, FusedVectors),
    "ef_lstm": (EfLstmOptions, EfLstm),
    "lf_dnn": (LfDnnOptions, LfDnn),
    "lmf": (LmfOptions, Lmf),
    "mag": (MagOptions, Mag),
    "misa": (MisaOptions, Misa),
    "mlf_dnn": (MlfDnnOptions, MlfDnn),
    "mlmf": (MlmfOptions, Mlmf),
    "mmim": (MmimOptions, Mmim),
    "mtfn": (MtfnOptions, Mtfn),
    "self_mm": (SelfMmOptions, SelfMm),
    "tfn": (TfnOptions, Tfn),
    "tfr_net": (TfrNetOptions, TfrNet),
    "mfn": (MemoryFusionOptions, MemoryFusion),
    "graph_mfn": (GraphMemoryFusionOptions, GraphMemoryFusion),
    "mult": (CrossmodalOptions, Crossmodal),
    "mfm": (FactorisationOptions, Factorisation),
}


def _kind(values: Any) -> str:
    """The kind that a section names; that of its first one where it names none."""
    if isinstance(values, dict):
        return str(values.get("kind", next(iter(NETWORKS))))
    return getattr(values, "kind", next(iter(NETWORKS)))  # what is no section is refused as one of it


Options = Annotated[Union[*(Annotated[o, Tag(kind)] for kind, (o, _) in NETWORKS.items())], Discriminator(_kind)]

"""Hidden states of a model: rows of its last layer and pooled vectors, written as npz, Parquet, or the pickle that MMSA
reads."""

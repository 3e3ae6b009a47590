"""Fusion of one vector of each modality of a sample to one vector: parts of models that encode modalities apart."""

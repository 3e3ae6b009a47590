"""Databases of the original system (MEmoBERT): their records, their side files, and the corpus that is made of them."""

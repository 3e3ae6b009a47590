"""Text emotion models and the pseudo labels that they give."""

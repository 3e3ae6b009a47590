"""Predictions beside what is true, and every score of them."""

"""Sound: where somebody speaks, and feature rows of it."""

"""The run of a preparation: its steps, workers, stores and report."""

"""Low-rank adapters (LoRA) on the linear maps of encoders that keep their weights: made, merged and named by peft."""

"""Where samples come from: clips, tables, pickles, arrays, and how they are split."""

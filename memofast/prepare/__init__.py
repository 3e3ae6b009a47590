"""Media to features: decoding, timings, faces, speech and text, written as stores that form a corpus."""

"""What is said when: subtitles, timings, transcripts, sentences."""

"""HTML pages and drawings."""

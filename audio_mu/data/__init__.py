"""Recordings: where they come from, how they are read, split, and turned into features."""

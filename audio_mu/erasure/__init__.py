"""Erasing an answered request: finding what holds its recordings, and taking it out."""

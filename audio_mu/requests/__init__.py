"""Deletion requests: which recordings they name, and the ledger of those that were answered."""

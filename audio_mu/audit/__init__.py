"""Audits of what a network still knows about the forget set: pure functions of logits and losses."""

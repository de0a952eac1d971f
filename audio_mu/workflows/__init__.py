"""The order of the work: what each entry point does, step by step. Nothing is computed here."""

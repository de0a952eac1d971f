"""What makes a network a base model of the store: its identity, its served form, weights that others trained."""

"""The tracking store: the only part that knows MLflow."""

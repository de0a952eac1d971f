"""The MLflow tracking store and model registry: the only importer of mlflow."""

import os

# Before mlflow is imported: neither may code be unpickled from a model, nor anything be reported to others.
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

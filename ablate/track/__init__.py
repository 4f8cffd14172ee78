"""What is recorded: journals (the local truth), their MLflow mirror, and one reader of results."""

"""MLflow's copy of the journals: written while trials train, and read as a source of results."""

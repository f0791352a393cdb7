"""One step over many items: bounded, resumed, counted. It knows nothing of what the step does."""

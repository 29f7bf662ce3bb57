"""What everything else stands on: facts, context, time, the pipeline. It knows nothing of the rooms above it."""

"""Framework and library events, turned into begin, finish and fail."""

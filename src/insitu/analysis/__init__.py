"""Facts and the time in, findings out: pure, and later than the request."""

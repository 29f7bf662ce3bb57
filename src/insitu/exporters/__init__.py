"""Facts, in the formats that others read."""

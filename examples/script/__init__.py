"""A script that runs at night: see nightly.py."""

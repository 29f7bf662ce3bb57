"""A blog in Flask: see blog.py."""

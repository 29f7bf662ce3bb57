"""Polls in Django: see manage.py."""

"""Pictures in Celery: see tasks.py."""

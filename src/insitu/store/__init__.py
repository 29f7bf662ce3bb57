"""What is kept on disk, beside the application: blocks of traces and logs, totals by time."""

"""What insitu answers itself over HTTP."""

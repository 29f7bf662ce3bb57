"""What the application says about itself, while the request runs."""

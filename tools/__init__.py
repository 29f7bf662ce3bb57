"""What the developers of insitu run beside it; never part of the installed package."""

"""What generate.py writes, and says of it."""

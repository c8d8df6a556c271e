"""What is measured on riffs, files and models, and how it is judged."""

"""What a player may ask of the generator: attributes, constraints, and the ways to start from a riff."""

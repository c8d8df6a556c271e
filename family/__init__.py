"""What melodies, drums, grooves and trios need beside riffs: their presets, their data, what is measured on them."""

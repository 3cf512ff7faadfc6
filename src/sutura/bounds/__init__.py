"""What can be said of a region: bounds on every value, sound for float32 execution."""

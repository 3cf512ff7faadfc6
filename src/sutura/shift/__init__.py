"""Weights that are signed powers of two: DeepShift as published, and conversion that costs less."""

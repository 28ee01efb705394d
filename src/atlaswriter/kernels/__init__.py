"""Compiled loops: arrays in, arrays out. numba and numpy only."""

"""How Python runs here: its garbage collector, Numba's machine code, a slow import."""

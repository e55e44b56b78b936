"""The garden: what results mean, in numbers. Stands on the ground floor alone."""

"""The memory of a labelling project: events, and what follows from them."""

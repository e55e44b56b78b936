"""Floor 3, west: trains and scores. No labelling decision is made here."""

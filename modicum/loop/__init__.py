"""Floor 3, east: decides what to train, to score and to ask. No torch here."""

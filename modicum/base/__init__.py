"""Ground floor: what every other floor stands on, and nothing that knows about texts, models or strategies."""

"""Floor 4: where the wings meet; grids of trials, run in gangs and kept in a store."""

"""What the benchmarks share: options, environments, interleaved measurements, tables, the machine's record."""

"""What fusefeed costs beside a raw loop or a peer that does the same work: `python -m benchmarks --help`."""

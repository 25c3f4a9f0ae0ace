"""The stages of fusefeed: one file, one command and one page each."""

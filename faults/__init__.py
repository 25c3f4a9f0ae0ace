"""What goes wrong at night, done on purpose to real runs; see README.md here."""

"""What a run takes over from the last published one: its embedding space, its model, erased ids."""

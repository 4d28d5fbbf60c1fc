"""How many bits each layer gets: what fewer or more of them do to the outputs, and which are worth their bytes."""

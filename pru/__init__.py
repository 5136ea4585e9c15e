"""What a user of the project has in hand: the command `pru`."""

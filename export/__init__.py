"""Export: a checkpoint in, a validated bundle out. Imports `model`, never `app` or `training`."""

"""Everything that goes into the container: launcher, supervisor, runner, and the frames between the last two."""

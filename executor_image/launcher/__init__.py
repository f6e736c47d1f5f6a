"""PID 1 of the container: enters as uid 0 with three capabilities, sets the stage, drops everything."""

"""The executor's server: moves bytes, counts, and decides when time is up. It never touches a user object."""

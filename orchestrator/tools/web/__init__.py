"""The web for tools on the host: fetching what code asked for, without reaching what it must not reach."""

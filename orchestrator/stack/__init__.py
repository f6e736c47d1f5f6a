"""From a fresh machine to a built executor image: engine, base image, wheels, image.

Each part looks first for what is there already, so a second run only looks. Knows nothing of sandboxes or agents.
"""

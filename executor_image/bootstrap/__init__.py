"""Turns a base image with CPython into the executor's root file system. Runs during the image build, and only there."""

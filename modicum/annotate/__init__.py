"""Labelling by people: a project's store, the server that they talk to, and the trainer in the loop."""

"""The model in the loop: the queue, and the trainer in a process of its own."""

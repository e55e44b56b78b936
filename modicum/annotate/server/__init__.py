"""The HTTP server: who may do what, and the interface that pages and programs use."""

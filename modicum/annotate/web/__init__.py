"""The pages: templates, one stylesheet, plain modules of JavaScript."""

"""A page to try it and a server for programs: one queue before one engine at a time."""

"""HTTP: requests whose bodies stream, files sent by the kernel, the routes, and the one place where errors are rendered."""

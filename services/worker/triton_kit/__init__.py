"""Code that the models of both workers share inside Triton.

The package is copied beside each model, into an environment with other pins, and imports the standard library and
`triton_python_backend_utils` only.
"""

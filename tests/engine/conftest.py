"""Before any test of this folder imports MLX: on Linux it multiplies with OpenBLAS where the system has it."""

from anyclaude.engine.model.blas import load_openblas

load_openblas()

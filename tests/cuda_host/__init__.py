"""Runs the CUDA sources on the CPU: stand-ins for the headers of CUDA, an emulator, and its builder."""

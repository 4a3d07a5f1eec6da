"""The optional compiled pump, `pump.c` and, where a C compiler was there at the installation, `pump.so` beside it."""

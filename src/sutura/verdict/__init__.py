"""Is it true? Three-valued verdicts, sound for float32 execution."""

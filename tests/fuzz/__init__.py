"""Coverage-guided fuzzing of everything that decodes: ``python -m tests.fuzz``."""

"""Coverage-guided fuzzing of what decodes an answer's body: ``python -m tests.fuzz``."""

"""What tells Bark's audio: `BarkDetector` and what it needs."""

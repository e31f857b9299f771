"""The studio: a page on which one types, hears, looks at what was made, and keeps it (`bark-tts studio`, extra `studio`)."""

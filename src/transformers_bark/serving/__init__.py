"""The service: one model behind a port, many callers at once (`bark-tts serve`, extra `serve`)."""
